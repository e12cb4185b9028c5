// The elements of the live page. What comes from a run becomes text, never markup: `h` sets text and attributes, and
// nothing else puts it here.

const SOME = 20; // rows that a table shows at first
const unfolded = new Set(); // tables that show all their rows

/** An element with attributes (false and null: without) and children; what is text stays text. */
function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(3).filter((child) => child !== false && child != null));
  return made;
}

const section = (id, title, ...children) =>
  h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), ...children);
const lead = (...text) => h("p", { class: "lead" }, ...text);
const notes = (texts) =>
  texts.length > 0 &&
  h(
    "ul",
    { class: "notes" },
    texts.map((text) => h("li", {}, sentence(text))),
  );

/** Makes `old` what `made` is, and keeps its elements where they can stay: focus, scrolling and charts stay too. */
function morph(old, made) {
  if (old.nodeType !== made.nodeType || old.nodeName !== made.nodeName || old.id !== made.id)
    return old.replaceWith(made);
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== made.nodeValue) old.nodeValue = made.nodeValue;
    return undefined;
  }
  if (old.matches(".chart")) return old.setAttribute("aria-label", made.getAttribute("aria-label")); // Plotly's
  for (const { name } of [...old.attributes]) if (!made.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of made.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const named = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let at = old.firstChild;
  for (const child of [...made.childNodes]) {
    const match = child.id ? named.get(child.id) : at && !at.id ? at : null;
    if (!match) {
      old.insertBefore(child, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    morph(match, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
  return undefined;
}

/** Puts a view into the page, over the one before. */
function put(...children) {
  const focused = document.activeElement?.id;
  morph(main, h("main", { id: "main" }, ...children));
  if (focused && document.activeElement?.id !== focused) byId(focused)?.focus({ preventScroll: true }); // it was moved
}

const number = (text) => h("td", { class: "number" }, text);

/** A table in a frame that scrolls, with its first rows, and a button for the others. */
function table(id, caption, columns, numeric, rows) {
  const whole = unfolded.has(id);
  const shown = whole ? rows : rows.slice(0, SOME);
  const more =
    rows.length > SOME &&
    h(
      "div",
      { class: "pager" },
      h(
        "button",
        { type: "button", id: `more-${id}`, "data-more": id, "aria-expanded": String(whole) },
        whole ? `Show the first ${SOME}` : `Show all ${rows.length.toLocaleString("en")}`,
      ),
    );
  return [
    h(
      "div",
      { class: "scroll", id: `scroll-${id}`, role: "region", tabindex: 0, "aria-label": caption },
      h(
        "table",
        {},
        h("caption", { class: "unseen" }, caption),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            columns.map((name, place) =>
              name ? h("th", { scope: "col", class: numeric.includes(place) ? "number" : null }, name) : h("td"),
            ),
          ),
        ),
        h("tbody", {}, shown),
      ),
    ),
    more || null,
  ];
}

// --- words ----------------------------------------------------------------------------------------------------------

const day = (seconds) =>
  new Date(1000 * seconds).toLocaleString("en-GB", {
    day: "numeric",
    month: "short",
    hour: "2-digit",
    minute: "2-digit",
  });
const clock = (seconds) =>
  Date.now() / 1000 - seconds < 43200 ? new Date(1000 * seconds).toLocaleTimeString("en-GB") : day(seconds);

/** `48 s`, `3 min 20 s`, `2 h 5 min`. */
function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

const took = (run) => (run.started == null ? "" : duration((run.ended ?? Date.now() / 1000) - run.started));
const state = (name) => h("span", { class: `state ${name.split(" ")[0]}` }, name);

/** `4 of 16 trials done · 2 running · 3 min 20 s`. */
function standing(run) {
  const others = Object.entries(run.counts).filter(([name]) =>
    ["running", "pending", "preempted", "failed"].includes(name),
  );
  const parts = [
    `${run.done} of ${run.total} ${run.total === 1 ? "trial" : "trials"} done`,
    ...others.map(([name, count]) => `${count} ${name}`),
    took(run),
  ];
  return parts.filter(Boolean).join(" · ");
}

function bestOf(run) {
  if (!run.best) return "No trial has an evaluation yet.";
  return [
    `${run.metric} `,
    h("b", {}, run.best),
    ` (trial ${run.best_trial})`,
    run.base && `, the base ${run.base}`,
    run.gain && ` (${run.gain})`,
  ];
}

const bar = (run) => h("progress", { max: 1, value: run.share, "aria-label": `${run.title}: work done` });
