// Sorting, zooming and linking; the page reads without it.
"use strict";
for (const pane of document.querySelectorAll(".pane")) {
  const canvas = pane.querySelector(".canvas"), svg = canvas && canvas.querySelector("svg");
  if (!svg) continue;
  const [width, height] = [svg.viewBox.baseVal.width, svg.viewBox.baseVal.height];
  let scale = 1;
  const zoom = (to, x, y) => {
    const before = scale;
    scale = Math.min(4, Math.max(0.05, to));
    svg.setAttribute("width", width * scale);
    svg.setAttribute("height", height * scale);
    canvas.scrollLeft = (canvas.scrollLeft + x) * scale / before - x;
    canvas.scrollTop = (canvas.scrollTop + y) * scale / before - y;
  };
  const fit = () => Math.min((canvas.clientWidth - 4) / width, (canvas.clientHeight - 4) / height);
  const wide = () => Math.min(1, Math.max(0.6, (canvas.clientWidth - 4) / width));
  pane.addEventListener("click", event => {
    const kind = event.target.dataset.zoom;
    const middle = [canvas.clientWidth / 2, canvas.clientHeight / 2];
    if (kind) zoom({ in: scale * 1.25, out: scale / 1.25, fit: fit(), one: 1 }[kind], ...middle);
  });
  canvas.addEventListener("wheel", event => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoom(scale * (event.deltaY < 0 ? 1.1 : 1 / 1.1), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  zoom(wide(), 0, 0);
  canvas.scrollLeft = (canvas.scrollWidth - canvas.clientWidth) / 2;
}

const layersOf = element => (element.dataset.layers || "").split(" ").filter(Boolean);
const nodes = [...document.querySelectorAll(".node")];
function light(layers, name) {
  for (const node of document.querySelectorAll("." + name)) node.classList.remove(name);
  for (const node of nodes) if (layersOf(node).some(l => layers.includes(l))) node.classList.add(name);
}
function show(pane, layers) {
  const node = nodes.find(n => n.closest(".pane") === pane && layersOf(n).some(l => layers.includes(l)));
  if (!node) return;
  const canvas = pane.querySelector(".canvas"), box = node.getBoundingClientRect(), frame = canvas.getBoundingClientRect();
  canvas.scrollTop += box.top - frame.top - (frame.height - box.height) / 2;
  canvas.scrollLeft += box.left - frame.left - (frame.width - box.width) / 2;
}
for (const node of nodes) {
  node.addEventListener("mouseenter", () => light(layersOf(node), "hot"));
  node.addEventListener("mouseleave", () => light([], "hot"));
  node.addEventListener("click", event => {
    // A click links the two pictures; with a modifier, or a second click, it leads to the layer below.
    if (event.ctrlKey || event.metaKey || node.classList.contains("chosen")) return;
    event.preventDefault();
    light(layersOf(node), "chosen");
    for (const pane of document.querySelectorAll(".pane"))
      if (pane !== node.closest(".pane")) show(pane, layersOf(node));
  });
}
function openTarget() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target || target.tagName !== "DETAILS") return;
  target.open = true;
  target.scrollIntoView({ block: "start" });
  light(layersOf(target), "chosen");
  for (const pane of document.querySelectorAll(".pane")) show(pane, layersOf(target));
}
addEventListener("hashchange", openTarget);
const asked = nodes.find(node => node.classList.contains("asked"));
if (asked) for (const pane of document.querySelectorAll(".pane")) show(pane, layersOf(asked));
openTarget();

for (const table of document.querySelectorAll(".sortable")) {
  const body = table.tBodies[0];
  table.tHead.addEventListener("click", event => {
    const head = event.target.closest("th");
    if (!head) return;
    const at = head.cellIndex, numeric = head.classList.contains("n");
    const down = head.dataset.order ? head.dataset.order !== "down" : numeric && at > 0;
    for (const other of table.tHead.rows[0].cells) delete other.dataset.order;
    head.dataset.order = down ? "down" : "up";
    const key = row => numeric ? Number(row.cells[at].dataset.sort) : row.cells[at].textContent;
    const compare = (a, b) => numeric ? key(a) - key(b) : key(a).localeCompare(key(b), undefined, { numeric: true });
    const rows = [...body.rows].sort((a, b) => down ? compare(b, a) : compare(a, b));
    body.append(...rows);
  });
}
