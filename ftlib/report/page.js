"use strict";
// Charts are drawn when they come near the screen, tables and lists show a page at a time, commands can be copied.
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);

// --- pages of rows ------------------------------------------------------------------------------------------------

/** Shows the children of `list` that `fits`, so many at a time, with buttons for the others below. */
class Pages {
  constructor(list) {
    this.items = [...list.children];
    this.size = Number(list.dataset.page);
    this.at = 0;
    this.fits = () => true;
    this.bar = document.createElement("div");
    this.bar.className = "pager";
    this.said = document.createElement("span");
    this.said.setAttribute("role", "status");
    this.back = this.button("Previous", -1);
    this.next = this.button("Next", 1);
    this.bar.append(this.back, this.next, this.said);
    (list.closest(".scroll") ?? list).after(this.bar);
    this.show();
    list.classList.add("paged");
  }

  button(name, step) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = name;
    made.addEventListener("click", () => { this.at += step * this.size; this.show(); });
    return made;
  }

  filter(fits) {
    this.fits = fits;
    this.at = 0;
    this.show();
  }

  show() {
    const fitting = this.items.filter(this.fits);
    const shown = new Set(fitting.slice(this.at, this.at + this.size));
    for (const item of this.items) item.hidden = !shown.has(item);
    const last = Math.min(this.at + this.size, fitting.length);
    this.said.textContent = fitting.length ? `${this.at + 1} to ${last} of ${fitting.length.toLocaleString("en")}` : "none";
    this.back.disabled = this.at === 0;
    this.next.disabled = last >= fitting.length;
    this.bar.hidden = this.items.length <= this.size;
  }
}

const pages = new Map(all("[data-page]").map((list) => [list, new Pages(list)]));

for (const group of all("[data-filters]")) {
  const list = pages.get(byId(group.dataset.filters));
  const buttons = all("button", group);
  for (const button of buttons) {
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      list.filter((item) => !button.dataset.change || item.dataset.change === button.dataset.change);
    });
  }
}

// --- copying ------------------------------------------------------------------------------------------------------

async function copy(button) {
  const source = byId(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {  // not allowed here: the text is marked, for the keyboard
    getSelection().selectAllChildren(source);
    button.textContent = "Marked";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}

for (const button of all("[data-copy]")) button.addEventListener("click", () => copy(button));

// --- charts -------------------------------------------------------------------------------------------------------

const charts = new Map(JSON.parse(byId("charts").textContent).map((chart) => [`chart-${chart.name}`, chart]));
const drawn = new Set();
const CONFIG = { responsive: true, displayModeBar: false, showTips: false };

/** What a colour of the page's style is now, in light or dark. */
function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** A copy in which `@accent` is that colour, wherever a colour stands. */
function coloured(value, isColour = false) {
  if (typeof value === "string") return isColour && value.startsWith("@") ? colour(value.slice(1)) : value;
  if (Array.isArray(value)) return isColour ? value.map((item) => coloured(item, true)) : value.map((item) => coloured(item));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, coloured(inner, key.endsWith("color"))]));
}

/** The page's look below what the chart says itself. */
function layoutOf(layout) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line"), automargin: true, fixedrange: true };
  const themed = coloured(layout);
  for (const key of Object.keys(themed)) if (/^[xy]axis/.test(key)) themed[key] = { ...axis, ...themed[key], title: { font: { size: 13 }, standoff: 10, ...themed[key].title } };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    dragmode: false,
    hovermode: "closest",
    xaxis: axis,
    yaxis: axis,
    ...themed,
    margin: { l: 48, r: 16, t: 16, b: 44, ...themed.margin },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", ...themed.legend },
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("soft") },
    hoverlabel: { bgcolor: colour("page"), bordercolor: colour("line"), font: { color: colour("text") } },
  };
}

function draw(element) {
  const chart = charts.get(element.id);
  drawn.add(element);
  Plotly.react(element, coloured(chart.data), layoutOf(chart.layout), CONFIG);
}

addEventListener("load", () => {
  const waiting = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      waiting.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "300px" });
  for (const element of all(".chart")) waiting.observe(element);
  addEventListener("beforeprint", () => all(".chart").filter((element) => !drawn.has(element)).forEach(draw));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(draw));
});
