// The calls: folded as in text, searched and filtered, made only where they are looked at.

const CHUNK = 100, LOOP = 12;
let items = [], words = [], texts = null, current = null;

/** What a search is held against. */
function textOf(at) {
  texts = texts || new Array(rows.length);
  if (texts[at] === undefined) {
    const row = rows[at];
    texts[at] = [unmarked(row[TEXT]), trace.commands[row[COMMAND]], row[SUBJECT], row[RESULT], who(row[THREAD]),
      row[WHY] ? row[WHY].join("\n") : "", row[STACK] || ""].join("\n").toLowerCase();
  }
  return texts[at];
}

const split = (text) => text.match(/(?:[^\s"]|"[^"]*"?)+/g) || [];

/** A word of a query as a test of a row. */
function test(word) {
  const found = /^(-?)(cmd|pid|tid|comm|obj|is|ret|seq):(.*)$/i.exec(word);
  const wanted = (found ? found[3] : word).replace(/"/g, "").toLowerCase();
  if (!found) {
    if (word.startsWith("-") && word.length > 1) {
      const not = wanted.slice(1);
      return (row, at) => !textOf(at).includes(not);
    }
    return (row, at) => textOf(at).includes(wanted);
  }
  const things = () => new Set(trace.things.flatMap(([, anchor, name], at) =>
    anchor.toLowerCase() === wanted || name.toLowerCase() === wanted ? [at] : []));
  const tests = {
    cmd: () => (row) => trace.commands[row[COMMAND]].toLowerCase().includes(wanted),
    pid: () => (row) => String(trace.threads[row[THREAD]][0]) === wanted,
    tid: () => (row) => String(trace.threads[row[THREAD]][1]) === wanted,
    comm: () => (row) => trace.threads[row[THREAD]][2].toLowerCase().includes(wanted),
    obj: () => { const these = things(); return (row) => row[THINGS].some((thing) => these.has(thing)); },
    ret: () => (row) => row[RESULT].toLowerCase() === wanted,
    seq: () => (row) => String(row[SEQ]) === wanted,
    is: () => ({
      failed: (row) => row[FLAGS] & FAILED && !row[GROUP], probe: (row) => row[GROUP] > 0,
      unfinished: (row) => row[FLAGS] & UNFINISHED, injected: (row) => row[FLAGS] & INJECTED,
    }[wanted] || (() => false)),
  };
  const one = tests[found[2].toLowerCase()]();
  return found[1] ? (row, at) => !one(row, at) : one;
}

/** Rows that a query lets through; without a query runs of probes and loops are folded. */
function select(query) {
  const all = split(query.trim());
  words = all.filter((word) => !/^-?\w+:/.test(word) && !word.startsWith("-")).map((word) => word.replace(/"/g, "").toLowerCase());
  const tests = all.map(test);
  items = [];
  let count = 0;
  if (tests.length) {
    rows.forEach((row, at) => { if (tests.every((one) => one(row, at))) items.push(at); });
    return items.length;
  }
  const runs = new Map();
  for (let at = 0; at < rows.length; at += 1) {
    const row = rows[at];
    count += 1;
    if (row[GROUP]) {
      if (runs.has(row[GROUP])) runs.get(row[GROUP]).list.push(at);
      else {
        const run = { list: [at], text: trace.groups[row[GROUP] - 1] };
        runs.set(row[GROUP], run);
        items.push(run);
      }
      continue;
    }
    let end = at;
    while (end + 1 < rows.length && alike(row, rows[end + 1])) end += 1;
    if (end - at >= LOOP) {
      const list = [];
      for (let each = at; each <= end; each += 1) list.push(each);
      const thing = row[THINGS].length ? trace.things[row[THINGS][0]][3] : "";
      const failed = row[FLAGS] & FAILED ? ` = ${row[RESULT]}` : "";
      const spread = row[SUBJECT] === rows[end][SUBJECT] ? row[SUBJECT] : `${row[SUBJECT]} … ${rows[end][SUBJECT]}`;
      items.push({ list, text: `${trace.commands[row[COMMAND]]}${failed} × ${list.length.toLocaleString("en")}${thing ? " on " + thing : ""}${spread && spread !== thing ? ": " + spread : ""}` });
      count += list.length - 1;
      at = end;
    } else items.push(at);
  }
  return count;
}

/** Calls of a loop: about one object, or word for word about the same; those that made something never. */
const alike = (a, b) => a[THREAD] === b[THREAD] && a[COMMAND] === b[COMMAND] && a[FLAGS] === b[FLAGS] && !(a[FLAGS] & MADE)
  && !b[GROUP] && a[THINGS][0] === b[THINGS][0] && (a[THINGS].length > 0 || a[SUBJECT] === b[SUBJECT])
  && String(a[WHY]) === String(b[WHY]) && (!(a[FLAGS] & FAILED) || a[RESULT] === b[RESULT]);

/** Text with what was searched for marked. */
function marked(text) {
  if (!words.length || !text) return text;
  const lower = text.toLowerCase(), made = document.createDocumentFragment();
  let at = 0;
  while (at < text.length) {
    let best = -1, size = 0;
    for (const word of words) {
      const found = word ? lower.indexOf(word, at) : -1;
      if (found >= 0 && (best < 0 || found < best)) { best = found; size = word.length; }
    }
    if (best < 0) break;
    made.append(text.slice(at, best), el("mark", {}, text.slice(best, best + size)));
    at = best + size;
  }
  made.append(text.slice(at));
  return made;
}

function callRow(at) {
  const row = rows[at], kind = kinds[row[COMMAND]], failed = row[FLAGS] & FAILED;
  const head = el("summary", {},
    el("span", { class: "seq" }, String(row[SEQ])), el("span", { class: "t" }, since(row[TIME])),
    el("span", { class: "w", title: who(row[THREAD]) }, marked(who(row[THREAD]))),
    el("span", { class: "c" }, el("i", { class: "k-" + kind }), marked(trace.commands[row[COMMAND]].replace(/^BPF_|^PERF_EVENT_IOC_/, ""))),
    el("span", { class: "s", title: row[SUBJECT] }, marked(row[SUBJECT])),
    el("span", { class: "x" }, row[FLAGS] & INJECTED ? el("span", { class: "injected" }, "injected ") : null, row[RESULT]),
    el("span", { class: "d" }, span(row[SPENT])));
  if (row[WHY]) {
    const why = row[WHY].find((line) => line.startsWith("why:")) || row[WHY][0];
    head.append(el("span", { class: "first" + (failed && why.startsWith("why:") ? "" : " retry") }, marked(why)));
  }
  const made = el("details", { class: "call" + (failed && !row[GROUP] ? " failed" : ""), id: "call-" + row[SEQ], "data-at": at }, head);
  made.addEventListener("toggle", () => made.open && made.childElementCount === 1 && made.append(callBody(row)));
  return made;
}

function callBody(row) {
  const labels = row[THINGS].map((number) => trace.things[number]);
  const object = (text) => {
    const inner = text.slice(1, -1);
    const thing = labels.find(([, , , label]) => inner === label || inner.startsWith(label + " "));
    return thing && $(thing[1]) ? el("a", { class: "p-object", href: "#" + thing[1] }, text) : null;
  };
  const body = el("div", { class: "body" }, el("pre", {}, painted(row[TEXT], object)));
  if (row[WHY]) body.append(el("div", { class: "why" }, row[WHY].join("\n")));
  if (row[STACK]) body.append(el("pre", { class: "about" }, row[STACK]));
  const links = el("div", { class: "links" });
  const load = trace.loads[row[SEQ]];
  if (load) links.append(el("a", { href: "#" + load }, "its listing"));
  for (const [kind, anchor, name, label] of labels) {
    const shown = kind === "perf_event" ? label : `${kind} ${name || anchor.replace(/^[a-z]+-/, "id ")}`;
    links.append(el("span", {}, $(anchor) ? el("a", { href: "#" + anchor }, shown) : shown, " ",
      el("a", { href: `?q=obj:${encodeURIComponent(anchor)}#calls`, title: "all calls that have to do with it" }, "⌕")));
  }
  links.append(el("a", { href: "#call-" + row[SEQ], title: "link to this call" }, `#call-${row[SEQ]}`));
  body.append(links);
  return body;
}

const lists = new WeakMap();
const watch = new IntersectionObserver((seen) => {
  for (const one of seen) if (one.isIntersecting) unfold(one.target);
}, { rootMargin: "900px" });

/** Makes the rows of a chunk. */
function unfold(chunk) {
  const part = lists.get(chunk);
  if (!part) return;
  lists.delete(chunk);
  watch.unobserve(chunk);
  chunk.style.minHeight = "";
  chunk.append(...part.map((item) => typeof item === "number" ? callRow(item) : runRow(item)));
}

/** Chunks of a list: as high as their rows will be, and empty until they are near. */
function chunks(box, list) {
  for (let at = 0; at < list.length; at += CHUNK) {
    const chunk = el("div", { class: "chunk" });
    lists.set(chunk, list.slice(at, at + CHUNK));
    chunk.style.minHeight = Math.min(CHUNK, list.length - at) * 28 + "px";
    box.append(chunk);
    watch.observe(chunk);
  }
}

function runRow(run) {
  const inner = el("div", { class: "inner" });
  const made = el("details", { class: "run" }, el("summary", {}, el("span", {}, run.text)), inner);
  made.addEventListener("toggle", () => made.open && !inner.childElementCount && chunks(inner, run.list));
  run.row = made;
  return made;
}

function show() {
  const query = $("q").value;
  const count = select(query);
  const list = $("list");
  list.replaceChildren();
  chunks(list, items);
  if (list.firstChild) unfold(list.firstChild);
  if (!items.length) list.append(el("p", { class: "empty" }, "No call is like that."));
  $("found").textContent = query.trim() ? `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")}` : many(rows.length, "call");
  reflect(query);
}

/** Puts a query into the field, the address and the list. */
function ask(query) {
  $("q").value = query;
  show();
  keep();
}

function keep() {
  const query = $("q").value.trim();
  try {
    history.replaceState(null, "", (query ? "?q=" + encodeURIComponent(query) : location.pathname) + location.hash);
  } catch { /* some places of a file have no history */ }
}

/** The boxes beside the field say the same as its words. */
function reflect(query) {
  const all = split(query);
  for (const [id, key] of [["by-thread", "pid"], ["by-command", "cmd"], ["by-thing", "obj"]]) {
    const word = all.find((one) => one.toLowerCase().startsWith(key + ":"));
    const box = $(id);
    box.value = word ? word.slice(key.length + 1).replace(/"/g, "").toLowerCase() : "";
    if (box.selectedIndex < 0) box.value = "";
  }
  $("by-error").checked = all.includes("is:failed");
}

function set(key, value) {
  const rest = split($("q").value).filter((word) => !word.toLowerCase().startsWith(key + ":"));
  if (value) rest.push(`${key}:${/\s/.test(value) ? `"${value}"` : value}`);
  ask(rest.join(" "));
}

/** Shows a call, wherever it is folded. */
function showCall(seq) {
  const at = bySeq.get(seq);
  if (at === undefined) return;
  if (!$("call-" + seq)) {
    const holds = (list) => list.findIndex((item) => item === at || (item.list && item.list.includes(at)));
    let index = holds(items);
    if (index < 0) {
      ask("");
      index = holds(items);
    }
    unfold($("list").children[Math.floor(index / CHUNK)]);
    const item = items[index];
    if (item.list) {
      item.row.open = true;
      const inner = item.row.querySelector(".inner");
      if (!inner.childElementCount) chunks(inner, item.list);
      unfold(inner.children[Math.floor(item.list.indexOf(at) / CHUNK)]);
    }
  }
  const row = $("call-" + seq);
  row.open = true;
  point(row);
  row.scrollIntoView({ block: "start" });
  // Chunks above get their true height while it scrolls.
  setTimeout(() => row.scrollIntoView({ block: "start" }), 60);
}

function point(row) {
  current?.classList.remove("at");
  current = row;
  row.classList.add("at");
}

/** To the next or previous call (that failed). */
function step(by, failed) {
  const flat = items.flatMap((item) => typeof item === "number" ? [item] : failed ? [] : item.row?.open ? item.list : []);
  const list = failed ? flat.filter((at) => rows[at][FLAGS] & FAILED) : flat;
  if (!list.length) return;
  const now = current?.isConnected ? Number(current.dataset.at) : by > 0 ? -1 : Infinity;
  const next = by > 0 ? list.find((at) => at > now) : list.findLast((at) => at < now);
  if (next === undefined) return;
  const seq = rows[next][SEQ];
  if (!$("call-" + seq)) {
    const index = items.findIndex((item) => item === next || (item.list && item.list.includes(next)));
    unfold($("list").children[Math.floor(index / CHUNK)]);
  }
  const row = $("call-" + seq);
  if (!row) return;
  point(row);
  row.querySelector("summary").focus({ preventScroll: true });
  row.scrollIntoView({ block: "center" });
}

function calls() {
  const option = (value, text) => el("option", { value }, text);
  const pids = new Map();
  for (const [pid, , comm, count] of trace.threads) if (count) pids.set(pid, pids.get(pid) || comm);
  $("by-thread").append(option("", "every process"), ...[...pids].map(([pid, comm]) => option(String(pid), `${comm} ${pid}`)));
  $("by-command").append(option("", "every command"), ...[...trace.commands].sort().map((name) => option(name.toLowerCase(), name)));
  const used = new Set(rows.flatMap((row) => row[GROUP] ? [] : row[THINGS]));
  $("by-thing").append(option("", "every object"), ...trace.things.flatMap(([, anchor, , label], at) =>
    used.has(at) ? [option(anchor.toLowerCase(), label.length > 60 ? label.slice(0, 59) + "…" : label)] : []));
  $("by-thread").addEventListener("change", (event) => set("pid", event.target.value));
  $("by-command").addEventListener("change", (event) => set("cmd", event.target.value));
  $("by-thing").addEventListener("change", (event) => set("obj", event.target.value));
  $("by-error").addEventListener("change", (event) => set("is", event.target.checked ? "failed" : ""));
  let due = 0;
  $("q").addEventListener("input", () => {
    clearTimeout(due);
    due = setTimeout(() => { show(); keep(); }, 80);
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='?q=']");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    ask(new URL(link.href, location.href).searchParams.get("q") || "");
    $("calls").scrollIntoView();
  });
  $("q").value = new URLSearchParams(location.search).get("q") || "";
  show();
  addEventListener("beforeprint", () => {
    for (const chunk of [...$("list").children].slice(0, 5)) unfold(chunk);
  });
}
