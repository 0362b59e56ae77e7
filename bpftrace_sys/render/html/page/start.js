// Sets the page in motion.

/** Dark or light, as chosen; else as the system has it. */
function theme(chosen) {
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
}

const KEYS = [
  ["/", "search calls"], ["Esc", "end the search"], ["j k", "next and previous call"],
  ["Enter", "unfold the call"], ["n N", "next and previous failed call"],
  ["+ - 0", "timeline: closer, farther, all"], ["g", "top of the page"], ["t", "dark or light"], ["?", "these keys"],
];

function help() {
  const shown = el("dialog", {}, el("h2", {}, "Keys"), el("table", {}, el("tbody", {},
    ...KEYS.map(([key, text]) => el("tr", {}, el("td", {}, key), el("td", {}, text))))));
  shown.addEventListener("click", () => shown.close());
  shown.addEventListener("close", () => shown.remove());
  document.body.append(shown);
  shown.showModal();
}

function toggleTheme() {
  const now = document.documentElement.dataset.theme
    || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  theme(next);
  try { localStorage.setItem("bpfstrace-theme", next); } catch { /* a file without storage */ }
}

/** The part of the graph around a node. */
function graphs() {
  const graph = document.querySelector(".graph");
  if (!graph) return;
  const nodes = [...graph.querySelectorAll(".node")], edges = [...graph.querySelectorAll(".edge")];
  const ends = edges.map((edge) => {
    const path = edge.getAttribute("d").match(/-?[\d.]+/g).map(Number);
    return [[path[0], path[1]], [path[path.length - 2], path[path.length - 1]]];
  });
  const holds = (node, [x, y]) => {
    const box = node.querySelector("rect"), at = (name) => Number(box.getAttribute(name));
    return x >= at("x") - 8 && x <= at("x") + at("width") + 2 && y >= at("y") && y <= at("y") + at("height");
  };
  const pick = (node) => {
    graph.classList.toggle("picked", Boolean(node));
    for (const part of [...nodes, ...edges]) part.classList.remove("near");
    if (!node) return;
    node.classList.add("near");
    edges.forEach((edge, at) => {
      if (!ends[at].some((end) => holds(node, end))) return;
      edge.classList.add("near");
      for (const other of nodes) if (ends[at].some((end) => holds(other, end))) other.classList.add("near");
    });
  };
  for (const node of nodes) {
    node.addEventListener("pointerenter", () => pick(node));
    node.addEventListener("pointerleave", () => pick(null));
    node.addEventListener("focus", () => pick(node));
    node.addEventListener("blur", () => pick(null));
  }
}

/** The section that is being read, in the menu. */
function follow() {
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watch = new IntersectionObserver((seen) => {
    for (const one of seen) links.get(one.target.id)?.classList.toggle("here", one.isIntersecting);
  }, { rootMargin: "-60px 0px -70% 0px" });
  for (const section of document.querySelectorAll("section")) watch.observe(section);
}

function start() {
  let kept = null;
  try { kept = localStorage.getItem("bpfstrace-theme"); } catch { /* a file without storage */ }
  if (kept === "dark" || kept === "light") theme(kept);
  $("theme").addEventListener("click", toggleTheme);
  $("keys").addEventListener("click", help);
  document.addEventListener("toggle", (event) => {
    if (event.target.tagName === "DETAILS" && event.target.open) fill(event.target);
  }, true);
  for (const entry of document.querySelectorAll("details[open][data-load]")) fill(entry);
  graphs();
  follow();
  if (typeof timeline === "function" && $("lanes")) timeline();
  if (typeof calls === "function" && $("list")) calls();
  addEventListener("hashchange", () => go(location.hash));
  // The same anchor again is no change, and has to lead there, too.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#']");
    if (link && link.getAttribute("href") === location.hash) go(location.hash);
  });
  addEventListener("beforeprint", () => {
    let room = 4000;
    for (const entry of document.querySelectorAll("details.entry[data-load]:not(.btf)")) {
      if (room <= 0) break;
      entry.open = true;
      fill(entry);
      room -= entry.querySelectorAll(".i, li").length + 20;
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "Escape" && event.target.id === "q") {
      ask("");
      event.target.blur();
    }
    if (typing || document.querySelector("dialog")) return;
    const deeds = {
      "/": () => $("q")?.focus(), "?": help, t: toggleTheme, g: () => scrollTo(0, 0),
      j: () => typeof step === "function" && step(1, false), k: () => typeof step === "function" && step(-1, false),
      n: () => typeof step === "function" && step(1, true), N: () => typeof step === "function" && step(-1, true),
      "+": () => $("zoom-in")?.click(), "-": () => $("zoom-out")?.click(), 0: () => $("zoom-all")?.click(),
    };
    const deed = deeds[event.key];
    if (!deed) return;
    event.preventDefault();
    deed();
  });
  if (location.hash) requestAnimationFrame(() => go(location.hash));
  document.documentElement.dataset.ready = "1";
}

start();
