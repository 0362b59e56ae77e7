// What all parts share: data, elements, painted text, where a link leads.

const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

/** The JSON of a block; null where there is none. */
function read(id) {
  const block = $(id);
  return block ? JSON.parse(block.textContent) : null;
}

/** An element. Children are nodes or text; text is never markup. */
function el(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const name in attributes) {
    const value = attributes[name];
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function svg(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const name in attributes) made.setAttribute(name, attributes[name]);
  if (text !== undefined) made.textContent = text;
  return made;
}

const trace = read("d-trace");
const rows = read("d-calls") || [];
const SEQ = 0, TIME = 1, SPENT = 2, THREAD = 3, COMMAND = 4, FLAGS = 5, RESULT = 6, SUBJECT = 7,
  THINGS = 8, TEXT = 9, WHY = 10, GROUP = 11, STACK = 12;
const FAILED = 1, UNFINISHED = 2, INJECTED = 4, MADE = 16;
const bySeq = new Map(rows.map((row, at) => [row[SEQ], at]));
const MARK = /([\ue000-\ue0ff])/;
const unmarked = (text) => text.replace(/[\ue000-\ue0ff]/g, "");

/** Painted text as spans; `object` may make a link of what is painted as an object. */
function painted(text, object) {
  const made = document.createDocumentFragment();
  let style = null;
  for (const part of text.split(MARK)) {
    if (part.length === 1 && MARK.test(part)) {
      const number = part.charCodeAt(0) - 0xe000;
      style = number === 0xff ? null : trace.styles[number - 1] || null;
    } else if (part) {
      const link = style === "object" && object ? object(part) : null;
      made.append(link || (style ? el("span", { class: "p-" + style }, part) : part));
    }
  }
  return made;
}

/** What kind of call a command is, for its colour. */
const kinds = trace ? trace.commands.map((command) => {
  if (command.includes("PROG_LOAD")) return "load";
  if (command.includes("BTF")) return "btf";
  if (/^BPF_MAP_/.test(command)) return "map";
  if (/LINK|ATTACH|RAW_TRACEPOINT|SET_BPF|EVENT_IOC_ENABLE|setsockopt|EBPF$/.test(command)) return "attach";
  if (/perf_event|PERF_/.test(command)) return "perf";
  return "other";
}) : [];

function span(ns) {
  if (ns === null || ns === undefined) return "";
  const [unit, factor] = ns >= 1e9 ? ["s", 1e9] : ns >= 1e6 ? ["ms", 1e6] : ns >= 1e3 ? ["µs", 1e3] : ["ns", 1];
  const value = ns / factor;
  return (value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)))) + " " + unit;
}

/** Nanoseconds since the first call, to be read as a column. */
const since = (ns) => "+" + (ns / 1e6).toFixed(3);
const many = (number, one) => number.toLocaleString("en") + " " + one + (number === 1 ? "" : "s");
const who = (thread) => trace.threads[thread][2] + " " + trace.threads[thread][1];

/** Opens all that a node is in, and what it is. */
function reveal(node) {
  for (let at = node; at; at = at.parentElement) {
    if (at.tagName === "DETAILS" && !at.open) {
      at.open = true;
      fill(at);
    }
  }
}

const fillers = {};
/** Makes the inside of an entry from its data, once. */
function fill(entry) {
  const block = entry.dataset.load;
  if (!block || entry.dataset.full) return;
  entry.dataset.full = "1";
  const data = read(block);
  for (const kind in fillers) if (data && entry.classList.contains(kind)) fillers[kind](entry, data);
}

function flash(node) {
  node.classList.add("flash");
  setTimeout(() => node.classList.remove("flash"), 1600);
}

/** Follows an anchor: to an entry, an instruction of a program, or a call. */
function go(hash) {
  let name = hash.replace(/^#/, "");
  try { name = decodeURIComponent(name); } catch { /* as it is */ }
  if (!name) return;
  const call = /^call-(\d+)$/.exec(name);
  if (call) return showCall(Number(call[1]));
  const insn = /^(.+)-pc-\d+$/.exec(name);
  if (insn && $(insn[1])) reveal($(insn[1]));
  const node = $(name);
  if (!node) return;
  reveal(node);
  node.scrollIntoView({ block: insn ? "center" : "start" });
  if (insn || node.tagName === "DETAILS" || node.tagName === "TR") flash(node);
}
