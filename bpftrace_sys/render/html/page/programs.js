// Programs: source beside instructions, jumps, the rejected instruction in its place, the log.

const PC = 0, INSN = 1, COMMENT = 2, TARGET = 3, SOURCE = 4, PLACE = 5, FUNCTION = 6;
const TOKEN = /\b([rw]\d{1,2})\b|(0x[0-9a-f]+|\b\d+\b)|\bcall ([\w.]+)|\b(pc[+-]\d+)/g;

/** An instruction's text with registers, numbers and calls coloured, and jumps as links. */
function insnText(line, row, entry) {
  let text = row[INSN];
  const code = /^\(([0-9a-f]{2})\) /.exec(text);
  if (code) {
    line.append(el("span", { class: "op" }, code[0]));
    text = text.slice(code[0].length);
  }
  let last = 0;
  for (const found of text.matchAll(TOKEN)) {
    line.append(text.slice(last, found.index));
    last = found.index + found[0].length;
    if (found[1]) line.append(el("span", { class: "r" }, found[1]));
    else if (found[2]) line.append(el("span", { class: "n" }, found[2]));
    else if (found[4]) line.append(row[TARGET] === undefined || row[TARGET] === null ? found[0]
      : el("a", { class: "to", href: `#${entry.id}-pc-${row[TARGET]}` }, found[0], ` → ${row[TARGET]}`));
    else line.append("call ", row[TARGET] === undefined || row[TARGET] === null
      ? el("span", { class: "callee" }, found[3]) : el("a", { class: "callee", href: `#${entry.id}-pc-${row[TARGET]}` }, found[3]));
  }
  line.append(text.slice(last));
}

/** A comment; a map of this program that it names is a link. */
function comment(text, maps) {
  const made = el("span", { class: "cm" }, "  /* ");
  const named = /^(map (?:fd \d+|idx \d+|id \d+|fd_array\[\d+\])?\s*)(.+?)((?:, value)?(?:\[\d+\]| ?\+\d+)*)$/.exec(text);
  const thing = named && maps.find((one) => one[2] === named[2]);
  if (thing) made.append(named[1], el("a", { href: "#" + thing[1] }, named[2]), named[3]);
  else made.append(text);
  made.append(" */");
  return made;
}

function insnLine(row, entry, maps, reads) {
  const line = el("span", { class: "i", id: `${entry.id}-pc-${row[PC]}`, "data-to": row[TARGET] ?? null });
  line.append(el("span", { class: "pc" }, String(row[PC])));
  insnText(line, row, entry);
  if (row[COMMENT]) line.append(comment(row[COMMENT], maps));
  if (reads && reads[row[PC]]) line.append(el("span", { class: "gets" }, "  ← " + reads[row[PC]]));
  return line;
}

/** What the verifier said, below the instruction that it refused. */
function verdict(data) {
  return el("div", { class: "reject" }, "✗ " + (data.said || "refused here"),
    data.state ? el("small", {}, "with " + data.state) : null);
}

fillers.prog = (entry, data) => {
  const listing = entry.querySelector(".listing");
  if (data.rows) {
    listing.append(code(entry, data));
    requestAnimationFrame(() => jumps(listing.firstChild, entry));
  } else if (data.said) listing.append(verdict(data));
  if (data.missing) listing.append(el("p", { class: "cut" }, many(data.missing, "more instruction") + " could not be read"));
  if (data.unread) listing.append(el("p", { class: "cut" }, data.unread));
  for (const name of ["translated", "native"]) {
    const part = entry.querySelector(".log." + name);
    if (part) part.addEventListener("toggle", () => part.open && kernelText(part.querySelector("pre"), data.kernel[name]), { once: true });
  }
  const log = entry.querySelector(".log:not(.translated, .native)");
  if (log && data.log) log.addEventListener("toggle", () => log.open && logText(log, entry, data), { once: true });
};

function code(entry, data) {
  const maps = (data.maps || []).map((number) => trace.things[number]);
  const sourced = data.rows.some((row) => row[SOURCE]);
  const kernel = new Map(((data.kernel || {}).rows || []).map((one) => [one[0], one]));
  const made = el("div", { class: "code" });
  let inside = null, seen = null;
  for (const row of data.rows) {
    if (row[FUNCTION]) {
      made.append(el("div", { class: "fn" }, row[FUNCTION] + ":"));
      inside = null;
    }
    const source = row[SOURCE];
    if (!inside || (source !== undefined && source !== null && (source || seen) && source !== seen)) {
      const group = el("div", { class: "group" + (sourced ? kernel.size ? " wide" : "" : " bare") });
      if (sourced) {
        const place = /:(\d+):\d+$/.exec(row[PLACE] || "");
        group.append(el("div", { class: source ? "src" : "src none", title: row[PLACE] || null },
          el("span", { class: "line" }, place && place[1] !== "0" ? place[1] : ""), source || ""));
      }
      inside = el("div", { class: "ins" });
      group.append(inside);
      made.append(group);
      seen = source;
    }
    const line = insnLine(row, entry, maps, data.reads);
    if (kernel.size) inside.append(el("div", { class: "pair" }, line, theirs(kernel.get(row[PC]))));
    else inside.append(line);
    if (data.rejected === row[PC]) {
      line.classList.add("rejected");
      inside.append(verdict(data));
    }
  }
  if (data.said && data.rejected === undefined) made.append(verdict(data));
  return made;
}

/** What the kernel made of an instruction: what differs, and the native code. */
function theirs(row) {
  const [pc, fate, translated, native] = row || [0, "", [], []];
  const made = el("div", { class: "ker " + fate, title: fate || null });
  if (fate === "removed") made.append(el("span", { class: "k" }, `${pc} removed`));
  for (const text of translated) made.append(el("span", { class: "k x" }, painted(text)));
  for (const [offset, text] of native) {
    made.append(el("span", { class: "k" }, el("span", { class: "pc" }, offset), painted(text)));
  }
  return made;
}

/** A listing of its own: translated instructions, or native code by function. */
function kernelText(pre, lines) {
  for (const line of lines) {
    if (typeof line === "string") pre.append(painted(line), "\n");
    else {
      pre.append(el("b", {}, line[0] + ":"), "\n");
      for (const [offset, text, source] of line[1]) {
        if (source) pre.append(el("span", { class: "sl" }, source), "\n");
        pre.append(offset.padStart(5) + ": ", painted(text), "\n");
      }
    }
  }
}

const LANE = 7, LANES = 6;

/** Arrows in the margin from jumps to where they lead; those of the line under the pointer lit. */
function jumps(box, entry) {
  const picture = svg("svg", { class: "jumps", "aria-hidden": "true" });
  box.prepend(picture);
  const lines = new Map();
  for (const line of box.querySelectorAll(".i[id]")) lines.set(Number(line.id.split("-pc-").pop()), line);
  const all = [];
  for (const [pc, line] of lines) {
    const to = line.dataset.to === undefined ? null : Number(line.dataset.to);
    if (to !== null && lines.has(to)) all.push({ pc, to, line, goal: lines.get(to) });
  }
  // Short ones next to the text, long ones farther out.
  all.sort((a, b) => Math.abs(a.to - a.pc) - Math.abs(b.to - b.pc));
  const taken = [];
  for (const jump of all) {
    const low = Math.min(jump.pc, jump.to), high = Math.max(jump.pc, jump.to);
    jump.lane = 0;
    while (jump.lane < LANES - 1 && (taken[jump.lane] || []).some(([a, b, goal]) => a <= high && low <= b && goal !== jump.to)) jump.lane += 1;
    (taken[jump.lane] = taken[jump.lane] || []).push([low, high, jump.to]);
  }
  const draw = () => {
    const whole = box.getBoundingClientRect();
    if (!whole.height) return;
    picture.replaceChildren();
    const spot = (line) => {
      const at = line.getBoundingClientRect();
      return [at.left - whole.left, at.top - whole.top + Math.min(at.height / 2, 10)];
    };
    for (const jump of all.slice(0, 1500)) {
      const [x, y] = spot(jump.line), [, end] = spot(jump.goal);
      const narrow = x < 45 ? 4 : LANE;
      const left = x - 8 - narrow * (jump.lane + 1), down = end > y ? 1 : -1;
      const bend = Math.min(4, Math.abs(end - y) / 2);
      jump.path = svg("path", { class: down < 0 ? "back" : "",
        d: `M${x} ${y}H${left + bend}Q${left} ${y} ${left} ${y + down * bend}V${end - down * bend}Q${left} ${end} ${left + bend} ${end}H${x - 3}` });
      picture.append(jump.path, svg("path", { class: "head", d: `M${x} ${end}l-6 -3v6z` }));
    }
  };
  draw();
  let due = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(due);
    due = requestAnimationFrame(draw);
  }).observe(box);
  const light = (line) => {
    for (const lit of box.querySelectorAll(".lit, .from")) lit.classList.remove("lit", "from");
    if (!line) return;
    for (const jump of all) {
      if (jump.line !== line && jump.goal !== line) continue;
      jump.line.classList.add("from");
      jump.goal.classList.add("lit");
      jump.path?.classList.add("lit");
    }
  };
  box.addEventListener("pointerover", (event) => light(event.target.closest(".i")));
  box.addEventListener("pointerleave", () => light(null));
  box.addEventListener("focusin", (event) => light(event.target.closest(".i")));
}

/** The verifier's log: indices of instructions are links, its last words stand out. */
function logText(log, entry, data) {
  const pre = log.querySelector("pre");
  if (data.log_cut) pre.append(el("span", { class: "cut" }, "... the beginning is not on this page\n"));
  for (const line of data.log.split("\n")) {
    const insn = /^(\d{1,9})(: \([0-9a-f]{2}\) .*)$/.exec(line);
    if (insn) pre.append(el("a", { href: `#${entry.id}-pc-${insn[1]}` }, insn[1]), insn[2] + "\n");
    else if (line.startsWith("; ")) pre.append(el("span", { class: "sl" }, line), "\n");
    else pre.append(data.said && line === data.said ? el("span", { class: "said" }, line) : line, "\n");
  }
}
