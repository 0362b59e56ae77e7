// The timeline: a lane a thread, a bar a call, time as it passed but for empty gaps.

const LANE_TALL = 24, HEAD = 26, LANES_SHOWN = 40;

function timeline() {
  const box = $("lanes");
  const segments = [];
  let total = 0;
  trace.axis.forEach(([begin, end, width], at) => {
    segments.push({ begin, end, width, from: total, gap: at % 2 === 1 });
    total += width;
  });
  const byThread = trace.threads.map(() => []);
  rows.forEach((row, at) => byThread[row[THREAD]].push(at));
  // Threads stand with their process, processes in the order in which they came.
  const order = new Map();
  for (const [pid] of trace.threads) if (!order.has(pid)) order.set(pid, order.size);
  const all = byThread.map((list, thread) => ({ list, thread, pid: trace.threads[thread][0] })).filter((lane) => lane.list.length)
    .sort((a, b) => order.get(a.pid) - order.get(b.pid) || a.thread - b.thread);
  const lanes = all.slice(0, LANES_SHOWN);
  const lane = new Map(lanes.map((one, at) => [one.thread, at]));
  let view = [0, total], wide = 0, left = 0, picture = null;

  /** Where a time is, of the sum of all widths. */
  const place = (time) => {
    let low = 0, high = segments.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (segments[middle].begin <= time) low = middle; else high = middle - 1;
    }
    const one = segments[low];
    return one.from + one.width * Math.min(1, Math.max(0, (time - one.begin) / ((one.end - one.begin) || 1)));
  };
  const x = (at) => left + (at - view[0]) / (view[1] - view[0]) * wide;
  const back = (px) => view[0] + (px - left) / wide * (view[1] - view[0]);
  const timeAt = (at) => {
    const one = segments.findLast((segment) => segment.from <= at) || segments[0];
    return one.gap ? null : one.begin + (at - one.from) / (one.width || 1) * (one.end - one.begin);
  };

  const draw = () => {
    const whole = box.clientWidth;
    if (!whole) return;
    left = whole < 600 ? 8 : 132;
    const row = whole < 600 ? LANE_TALL + 14 : LANE_TALL;
    wide = whole - left - 12;
    const tall = HEAD + lanes.length * row + 6;
    const made = svg("svg", { height: tall, viewBox: `0 0 ${whole} ${tall}` });
    for (const one of segments) {
      const a = x(one.from), b = x(one.from + one.width);
      if (b < left || a > left + wide || !one.gap) continue;
      made.append(svg("rect", { class: "gap", x: Math.max(a, left), y: HEAD - 6, width: Math.min(b, left + wide) - Math.max(a, left), height: tall - HEAD, "data-gap": one.end - one.begin }));
      if (b - a > 30) {
        const label = svg("text", { class: "gap-text", x: (a + b) / 2, y: HEAD - 10, "text-anchor": "middle" }, span(one.end - one.begin));
        made.append(label);
      }
    }
    const ticks = [];
    for (let px = left; px < left + wide - 60; px += 4) {
      if (ticks.length && px - ticks[ticks.length - 1].px < 92) continue;
      const time = timeAt(back(px));
      if (time !== null) ticks.push({ px, time });
    }
    // As many digits as tell neighbours apart.
    const apart = Math.min(...ticks.slice(1).map((tick, at) => tick.time - ticks[at].time));
    const [unit, factor] = ticks.length && ticks[ticks.length - 1].time >= 1e9 ? ["s", 1e9] : ["ms", 1e6];
    const digits = Math.min(unit === "s" ? 9 : 6, Math.max(0, Math.ceil(Math.log10(factor / apart)) + 1 || 0));
    for (const { px, time } of ticks) {
      made.append(svg("path", { class: "tick", d: `M${px} ${HEAD - 6}V${tall - 6}` }),
        svg("text", { x: px + 2, y: 11 }, `+${(time / factor).toFixed(Number.isFinite(apart) ? digits : 3)} ${unit}`));
    }
    lanes.forEach((one, at) => {
      const y = HEAD + at * row + (whole < 600 ? 14 : 0);
      const [pid, tid, comm] = trace.threads[one.thread];
      const name = tid === pid || at === 0 || lanes[at - 1].pid !== pid ? `${comm.slice(0, 15)} ${tid}` : `thread ${tid}`;
      const label = svg("text", whole < 600 ? { class: "who", x: left, y: y - 2 } : { class: "who", x: left - 10, y: y + 12, "text-anchor": "end" }, name);
      label.append(svg("title", {}, `process ${pid}, thread ${tid}: ${many(one.list.length, "call")}`));
      made.append(svg("path", { class: "rail", d: `M${left} ${y + 8}H${left + wide}` }), label);
      const edges = {};
      for (const index of one.list) {
        const call = rows[index];
        const a = x(place(call[TIME])), b = Math.max(a + 2, x(place(call[TIME] + (call[SPENT] || 0))));
        if (b < left || a > left + wide) continue;
        const bad = call[FLAGS] & FAILED && !call[GROUP];
        const kind = (bad ? "failed" : "k-" + kinds[call[COMMAND]]) + (call[GROUP] ? " probe" : "");
        // What would hardly stick out behind one that looks the same is left out.
        if (b < (edges[kind] ?? -1) + 0.7) continue;
        edges[kind] = b;
        const from = Math.max(a, left);
        made.append(svg("rect", { class: "bar " + kind, x: from.toFixed(1), y, width: (Math.min(b, left + wide) - from).toFixed(1), height: 16, "data-at": index }));
        if (bad) made.append(svg("path", { class: "flag", d: `M${from - 3} ${y - 4}h${6 + Math.min(b - a, 4)}l-4 5z` }));
      }
    });
    for (const [time, thread, text] of trace.events) {
      if (!lane.has(thread)) continue;
      const a = x(place(time)), y = HEAD + lane.get(thread) * row + (whole < 600 ? 14 : 0);
      if (a < left - 1 || a > left + wide + 1) continue;
      const mark = svg("path", { class: "event", d: `M${a} ${y - 3}V${y + 19}` });
      mark.append(svg("title", {}, text));
      made.append(mark);
    }
    if (picture) picture.replaceWith(made); else box.prepend(made);
    picture = made;
  };

  const zoom = (from, to) => {
    const least = total / 1e7;
    const size = Math.min(total, Math.max(least, to - from));
    const begin = Math.min(Math.max(0, from), total - size);
    view = [begin, begin + size];
    draw();
  };
  const scale = (factor, middle = (view[0] + view[1]) / 2) =>
    zoom(middle - (middle - view[0]) * factor, middle + (view[1] - middle) * factor);

  $("zoom-in").addEventListener("click", () => scale(0.5));
  $("zoom-out").addEventListener("click", () => scale(2));
  $("zoom-all").addEventListener("click", () => zoom(0, total));
  box.addEventListener("dblclick", () => zoom(0, total));
  box.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    scale(event.deltaY > 0 ? 1.25 : 0.8, back(event.offsetX));
  }, { passive: false });
  box.addEventListener("keydown", (event) => {
    const size = view[1] - view[0];
    const deed = { ArrowLeft: () => zoom(view[0] - size / 5, view[1] - size / 5), ArrowRight: () => zoom(view[0] + size / 5, view[1] + size / 5) }[event.key];
    if (deed) { event.preventDefault(); deed(); }
  });

  /** The call under the pointer, or one beside it: most bars are thin. Else what is there. */
  const near = (event) => {
    for (const by of [0, -2, 2, -4, 4]) {
      const found = document.elementFromPoint(event.clientX + by, event.clientY);
      if (found?.dataset.at !== undefined && box.contains(found)) return found;
    }
    return event.target;
  };
  let from = null, pick = null;
  const tip = el("div", { id: "tip", hidden: true, role: "tooltip" });
  document.body.append(tip);
  box.addEventListener("pointerdown", (event) => {
    if (event.button || event.pointerType === "touch") return;
    from = event.clientX - box.getBoundingClientRect().left;
  });
  box.addEventListener("pointermove", (event) => {
    const at = event.clientX - box.getBoundingClientRect().left;
    if (from !== null && Math.abs(at - from) > 4) {
      if (!pick) picture.append(pick = svg("rect", { class: "pick", y: 0, height: picture.getAttribute("height") }));
      pick.setAttribute("x", Math.min(at, from));
      pick.setAttribute("width", Math.abs(at - from));
      tip.hidden = true;
      return;
    }
    const { at: index, gap } = near(event).dataset || {};
    tip.hidden = index === undefined && gap === undefined;
    if (tip.hidden) return;
    if (index === undefined) tip.replaceChildren(`${span(Number(gap))} without a call`);
    else {
      const call = rows[index];
      tip.replaceChildren(el("b", {}, trace.commands[call[COMMAND]]), " = ", call[RESULT], ` · ${span(call[SPENT]) || "unfinished"}`,
        el("br"), call[SUBJECT] || "", el("br"), el("span", { class: "about" }, `#${call[SEQ]} · ${since(call[TIME])} ms · ${who(call[THREAD])}`));
      if (call[WHY]) tip.append(el("br"), el("span", { class: "bad" }, call[WHY][0]));
    }
    const rect = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - rect.width - 8)) + "px";
    tip.style.top = (event.clientY + 18 + rect.height > innerHeight ? event.clientY - rect.height - 10 : event.clientY + 18) + "px";
  });
  box.addEventListener("pointerleave", () => { tip.hidden = true; });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  addEventListener("pointerup", (event) => {
    if (from === null) return;
    const at = event.clientX - box.getBoundingClientRect().left;
    const begin = from, moved = Boolean(pick);
    from = null;
    pick?.remove();
    pick = null;
    if (moved) zoom(Math.min(back(begin), back(at)), Math.max(back(begin), back(at)));
    else if (near(event).dataset?.at !== undefined) location.hash = "call-" + rows[near(event).dataset.at][SEQ];
  });
  const used = new Set(rows.map((row) => kinds[row[COMMAND]]));
  const names = { load: "programs", map: "maps", attach: "attaching", perf: "perf events", btf: "BTF", other: "others" };
  const legend = el("div", { class: "legend" }, ...Object.keys(names).filter((kind) => used.has(kind))
    .map((kind) => el("span", {}, el("i", { class: "k-" + kind }), names[kind])));
  if (rows.some((row) => row[FLAGS] & FAILED && !row[GROUP])) legend.append(el("span", {}, el("i", { class: "failed" }), "failed"));
  if (rows.some((row) => row[GROUP])) legend.append(el("span", {}, "pale: feature probes"));
  if (segments.some((one) => one.gap)) legend.append(el("span", {}, "grey: gaps, compressed"));
  if (all.length > lanes.length) legend.append(el("span", {}, many(all.length - lanes.length, "thread") + " more, which the calls below have"));
  box.after(legend);
  new ResizeObserver(draw).observe(box);
  addEventListener("beforeprint", draw);
  draw();
}
