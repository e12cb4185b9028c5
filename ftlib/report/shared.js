"use strict";
// What ftlib's pages share: how a chart is drawn in the colours of the page, and how a text is copied.
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const byId = (id) => document.getElementById(id);

// --- charts -------------------------------------------------------------------------------------------------------

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

/** Draws one of shapes.Chart into an element, anew or over what it shows. */
function drawInto(element, chart) {
  Plotly.react(element, coloured(chart.data), layoutOf(chart.layout), CONFIG);
}

// --- copying ------------------------------------------------------------------------------------------------------

/** Copies the text of the element that the button names. */
async function copy(button) {
  const source = byId(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {  // not allowed here: the text is marked, for the keyboard
    getSelection().selectAllChildren(source);
    button.textContent = "Marked";
  }
  button.addEventListener("blur", () => { button.textContent = "Copy"; }, { once: true });
}
