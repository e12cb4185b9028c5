// Charts are drawn when they come near the screen, tables and lists show a page at a time, commands can be copied.

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

for (const button of all("[data-copy]")) button.addEventListener("click", () => copy(button));

// --- charts -------------------------------------------------------------------------------------------------------

const charts = new Map(JSON.parse(byId("charts").textContent).map((chart) => [`chart-${chart.name}`, chart]));
const drawn = new Set();

/** Runs Plotly, which stands in the page as text: 4.5 MB of code that the first screen does not need. */
function startPlotly() {
  const made = document.createElement("script");
  made.textContent = byId("plotly").textContent;
  byId("plotly").replaceWith(made);
}

function draw(element) {
  if (!("Plotly" in window)) startPlotly();
  drawn.add(element);
  drawInto(element, charts.get(element.id));
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
