// Values of maps over time, by key; BTF as C.

const WHAT = { set: "set", read: "read", delete: "deleted", take: "taken", miss: "not there" };

/** A number from event to event, if it changes; where time passes in leaps, an axis of time shows little. */
function spark(events) {
  const found = events.filter((event) => typeof event[4] === "number" && event[1] !== "miss");
  const values = found.map((event) => event[4]);
  if (values.length < 3 || Math.min(...values) === Math.max(...values)) return null;
  const low = Math.min(...values), high = Math.max(...values), wide = 116, tall = 20;
  const x = (at) => 2 + wide * at / (values.length - 1);
  const y = (value) => 3 + tall * (1 - (value - low) / (high - low));
  const picture = svg("svg", { class: "spark", viewBox: "0 0 120 26", role: "img" });
  picture.append(svg("title", {}, `${values.length} values between ${low} and ${high}`),
    svg("path", { d: values.map((value, at) => `${at ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("") }),
    svg("circle", { cx: x(values.length - 1), cy: y(values[values.length - 1]), r: 2 }));
  return picture;
}

const AT_FIRST = 6;

fillers.map = (entry, data) => {
  const keys = new Map();
  for (const event of data.events) {
    if (!keys.has(event[2])) keys.set(event[2], []);
    keys.get(event[2]).push(event);
  }
  const sparks = new Map([...keys].map(([key, events]) => [key, spark(events)]));
  const drawn = [...sparks.values()].some(Boolean);
  const body = el("tbody");
  for (const [key, events] of keys) {
    const list = el("ol");
    // The first and the last ones; what is between unfolds.
    const folded = events.length > AT_FIRST + 2 ? events.slice(2, -AT_FIRST) : [];
    const show = (event, at) => el("li", { class: at < events.length - 1 ? "old" : null }, ...story(event));
    events.forEach((event, at) => {
      if (!folded.includes(event)) list.append(show(event, at));
      else if (event === folded[0]) {
        const more = el("button", { type: "button" }, `${folded.length} more`);
        const item = el("li", {}, more);
        more.addEventListener("click", () => item.replaceWith(...folded.map((one) => show(one, 0))));
        list.append(item);
      }
    });
    body.append(el("tr", {}, el("td", {}, painted(key)), drawn ? el("td", {}, sparks.get(key)) : null, el("td", {}, list)));
  }
  entry.querySelector(".values").append(el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "key"),
    drawn ? el("th", {}, "as it changed") : null, el("th", {}, "what happened to it"))), body));
};

function story([seq, what, , value, number]) {
  const at = bySeq.get(seq);
  const told = [el("span", { class: "at" }, at === undefined ? "" : since(rows[at][TIME]) + " ms "),
    el("a", { class: what === "miss" ? "miss" : "what", href: `#call-${seq}` }, WHAT[what] || what)];
  if (value && what !== "delete" && what !== "miss") {
    told.push(" ", painted(value));
    // Bytes without a type are a number, perhaps.
    if (typeof number === "number" && value.startsWith("[")) told.push(el("span", { class: "at" }, `  ${number.toLocaleString("en")}`));
  }
  return told;
}

const C = /(\/\*[^]*?\*\/)|\b(struct|union|enum|typedef|const|volatile|restrict|unsigned|signed|long|short|int|char|void|static|extern|float|double|_Bool)\b|\b(0x[0-9a-fA-F]+|\d+)\b/g;

fillers.btf = (entry, data) => {
  const pre = entry.querySelector("pre.c");
  let last = 0, tokens = 0;
  for (const found of data.text.matchAll(C)) {
    if ((tokens += 1) > 20000) break;
    pre.append(data.text.slice(last, found.index), el("span", { class: found[1] ? "cm" : found[2] ? "kw" : "n" }, found[0]));
    last = found.index + found[0].length;
  }
  pre.append(data.text.slice(last));
};
