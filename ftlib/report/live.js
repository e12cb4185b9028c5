// All that comes from a run becomes text, never markup: `h` sets text and attributes, and nothing else puts it here.
const EVERY = 2000;  // milliseconds between two looks
const SOME = 20;  // rows that a table shows at first
const main = byId("main"), dialog = byId("steer");

// --- asking -------------------------------------------------------------------------------------------------------

const tags = new Map();  // of the answers that are known, by their URL
const known = new Map();

class Refused extends Error {}

/** What the server tells of a URL; the same object as before where nothing has changed. Throws Refused. */
async function ask(url, options = {}) {
  let response;
  try {
    const headers = { ...(tags.has(url) && { "if-none-match": tags.get(url) }), ...options.headers };
    response = await fetch(url, { ...options, headers, cache: "no-store" });
  } catch {
    throw new Refused("ftlib ui does not answer: does it still run in its terminal?");
  }
  if (response.status === 304) return known.get(url);
  const told = await response.json();
  if (!response.ok) throw new Refused(told.error);
  if (response.headers.has("etag")) {
    tags.set(url, response.headers.get("etag"));
    known.set(url, told);
  }
  return told;
}

// --- elements -----------------------------------------------------------------------------------------------------

/** An element with attributes (false and null: without) and children; what is text stays text. */
function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(3).filter((child) => child !== false && child != null));
  return made;
}

/** Makes `old` what `made` is, and keeps its elements where they can stay: focus, scrolling and charts stay too. */
function morph(old, made) {
  if (old.nodeType !== made.nodeType || old.nodeName !== made.nodeName || old.id !== made.id) return old.replaceWith(made);
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== made.nodeValue) old.nodeValue = made.nodeValue;
    return undefined;
  }
  if (old.matches(".chart")) return old.setAttribute("aria-label", made.getAttribute("aria-label"));  // Plotly's
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
  if (focused && document.activeElement?.id !== focused) byId(focused)?.focus({ preventScroll: true });  // it was moved
}

// --- words --------------------------------------------------------------------------------------------------------

const day = (seconds) => new Date(1000 * seconds).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const clock = (seconds) => (Date.now() / 1000 - seconds < 43200 ? new Date(1000 * seconds).toLocaleTimeString("en-GB") : day(seconds));

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
  const others = Object.entries(run.counts).filter(([name]) => ["running", "pending", "preempted", "failed"].includes(name));
  const parts = [`${run.done} of ${run.total} ${run.total === 1 ? "trial" : "trials"} done`, ...others.map(([name, count]) => `${count} ${name}`), took(run)];
  return parts.filter(Boolean).join(" · ");
}

function bestOf(run) {
  if (!run.best) return "No trial has an evaluation yet.";
  return [`${run.metric} `, h("b", {}, run.best), ` (trial ${run.best_trial})`, run.base && `, the base ${run.base}`, run.gain && ` (${run.gain})`];
}

const bar = (run) => h("progress", { max: 1, value: run.share, "aria-label": `${run.title}: work done` });

// --- views --------------------------------------------------------------------------------------------------------

const chosen = new Set();  // names of runs, at most two
const unfolded = new Set();  // tables that show all their rows
let sought = "";  // what names of runs must hold

const link = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;
const api = (...parts) => parts.map(encodeURIComponent).join("/");

/** What the address asks for: where it is asked, and what shows it. */
function view() {
  const [kind, a, b] = location.hash.slice(2).split("/").map(unquoted);
  if (kind === "run" && a) return { url: `api/runs/${api(a)}`, show: showRun, name: a };
  if (kind === "beside" && a && b) return { url: `api/beside?a=${api(a)}&b=${api(b)}`, show: showBeside, name: `${a} and ${b}` };
  return { url: "api/runs", show: showRuns, name: "Runs" };
}

function unquoted(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function showRuns({ folder, runs }) {
  document.title = `Runs in ${folder}`;
  const running = runs.filter((run) => run.state === "running");
  const found = runs.filter((run) => run.name.toLowerCase().includes(sought.toLowerCase()));
  put(
    h("header", {}, h("p", { class: "run" }, folder), h("h1", { tabindex: -1 }, "Runs")),
    h("section", { id: "now", "aria-labelledby": "now-title" },
      h("h2", { id: "now-title" }, "Running now"),
      running.length ? h("div", { class: "now" }, running.map(card)) : h("p", { class: "lead" }, "Nothing runs."),
    ),
    h("section", { id: "all", "aria-labelledby": "all-title" },
      h("h2", { id: "all-title" }, "All runs"),
      runs.length ? [tools(runs), runsTable(found)] : h("p", { class: "lead" }, "There is no run here yet: ", h("code", {}, "ftlib sweep FILE"), " makes one."),
    ),
  );
}

function card(run) {
  return h("article", { id: `card-${run.name}` },
    h("h3", {}, h("a", { href: link("run", run.name) }, run.title)), h("p", { class: "run" }, run.name), bar(run),
    h("p", {}, standing(run)), h("p", {}, bestOf(run)));
}

function tools(runs) {
  const both = runs.map((run) => run.name).filter((name) => chosen.has(name));
  const ready = both.length === 2;
  return h("div", { class: "tools" },
    h("label", { for: "sought" }, "Find"), h("input", { id: "sought", type: "search", size: 24, autocomplete: "off" }),
    ready ? h("a", { id: "compare", class: "button", href: link("beside", ...both) }, "Show both beside each other")
      : h("span", { id: "choose" }, "Choose two runs to see them beside each other."));
}

function runsTable(runs) {
  const columns = ["", "Run", "State", "Trials", "Best", "vs base", "Began", "Took", "Report"];
  return table("runs", "The runs, the newest first", columns, [3, 4, 5], runs.map((run) => {
    const head = h("th", { scope: "row" }, run.damaged ? run.name : h("a", { id: `open-${run.name}`, href: link("run", run.name) }, run.name));
    if (run.damaged) return h("tr", { id: `row-${run.name}` }, h("td"), head, h("td", {}, state("damaged")), h("td", { class: "damage", colspan: 6 }, run.damaged));
    const box = h("input", { type: "checkbox", id: `choose-${run.name}`, "data-choose": run.name, "aria-label": `Choose ${run.name}` });
    box.checked = chosen.has(run.name);
    const report = run.report && h("a", { href: `runs/${api(run.name)}/report.html`, target: "_blank", "aria-label": `Report of ${run.name}` }, "report");
    return h("tr", { id: `row-${run.name}` },
      h("td", {}, box), head, h("td", { title: run.why }, state(run.state)), number(`${run.done} of ${run.total}`),
      number(run.best && [h("span", { class: "metric" }, run.metric), ` ${run.best}`]), number(run.gain), h("td", {}, run.started == null ? "" : day(run.started)), h("td", {}, took(run)), h("td", {}, report));
  }));
}

const AFTER_STATE = 3;  // columns of the leaderboard stand before those that steer
const number = (text) => h("td", { class: "number" }, text);

/** A table in a frame that scrolls, with its first rows, and a button for the others. */
function table(id, caption, columns, numeric, rows) {
  const all = unfolded.has(id), shown = all ? rows : rows.slice(0, SOME);
  const more = rows.length > SOME && h("div", { class: "pager" }, h("button", { type: "button", id: `more-${id}`, "data-more": id, "aria-expanded": String(all) },
    all ? `Show the first ${SOME}` : `Show all ${rows.length.toLocaleString("en")}`));
  return [
    h("div", { class: "scroll", id: `scroll-${id}`, role: "region", tabindex: 0, "aria-label": caption },
      h("table", {}, h("caption", { class: "unseen" }, caption),
        h("thead", {}, h("tr", {}, columns.map((name, place) => (name ? h("th", { scope: "col", class: numeric.includes(place) ? "number" : null }, name) : h("td"))))),
        h("tbody", {}, shown))),
    more || null,
  ];
}

function showRun(run) {
  if (run.damaged) return showDamaged(run);
  document.title = `${run.title}: ${run.state === "running" ? `${run.done} of ${run.total}` : run.state}`;
  put(
    back(),
    h("header", {}, h("p", { class: "run" }, run.name), h("h1", { tabindex: -1 }, run.title),
      h("p", { class: "about" }, h("span", {}, state(run.state)), run.about.map((fact) => h("span", {}, fact)))),
    h("section", { id: "verdict", "aria-labelledby": "verdict-title" },
      h("h2", { id: "verdict-title" }, run.state === "running" ? "So far" : "Verdict"),
      h("p", { class: "verdict" }, run.verdict.map((part) => h("span", {}, part))),
      run.state === "running" && [bar(run), h("p", { class: "standing" }, standing(run))],
      (run.why || run.notes.length > 0) && h("ul", { class: "notes" }, [run.why, ...run.notes].filter(Boolean).map((note) => h("li", {}, sentence(note)))),
      run.report && h("p", { class: "standing" }, h("a", { href: `runs/${api(run.name)}/report.html`, target: "_blank" }, "The report of this run")),
    ),
    run.charts.length > 0 && figures("curves", "Learning curves", run.charts),
    h("section", { id: "leaderboard", "aria-labelledby": "leaderboard-title" },
      h("h2", { id: "leaderboard-title" }, "Leaderboard"), leaderboard(run), run.tied && h("p", { class: "lead" }, run.tied)),
    run.promotion && h("section", { id: "promote", "aria-labelledby": "promote-title" }, h("h2", { id: "promote-title" }, "Promote the winner"), code("promotion", run.promotion)),
    h("section", { id: "news", "aria-labelledby": "news-title" }, h("h2", { id: "news-title" }, "Lately"),
      h("ol", { class: "news" }, run.news.map(({ time, text }) => h("li", {}, h("time", {}, time == null ? "" : clock(time)), h("span", {}, text))))),
  );
  drawAll(run.charts);
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
const back = () => h("p", { class: "back" }, h("a", { href: "#/" }, "← All runs"));

function showDamaged({ name, damaged }) {
  put(back(), h("header", {}, h("h1", { tabindex: -1 }, name)), h("p", { class: "wrong" }, sentence(damaged)));
}

function leaderboard(run) {
  const steered = run.lines.some((line) => line.deeds.length);
  const columns = steered ? run.columns.toSpliced(AFTER_STATE, 0, "Steer") : run.columns;
  const numeric = steered ? run.numeric.map((place) => (place < AFTER_STATE ? place : place + 1)) : run.numeric;
  return table("trials", "The trials, best first", columns, numeric, run.lines.map((line) => {
    const cells = line.cells.map((cell, place) => cellOf(run, line, cell, place));
    if (steered) cells.splice(AFTER_STATE, 0, h("td", {}, h("span", { class: "deeds" }, line.deeds.map((deed) => deedButton(deed, line.trial)))));
    return h("tr", { class: line.kind || null, id: `trial-${line.trial}` }, cells);
  }));
}

function deedButton(deed, trial) {
  return h("button", { type: "button", id: `${deed}-${trial}`, "data-deed": deed, "data-trial": trial, "aria-label": `${titled(deed)} trial ${trial}` }, titled(deed));
}

function cellOf(run, line, cell, place) {
  if (place === 1) return h("th", { scope: "row" }, cell, line.tags.map((tag) => [" ", h("span", { class: "tag" }, tag)]));
  if (place === 2) return h("td", {}, state(cell), line.why && h("span", { class: "why", title: line.why }, line.why));
  return h("td", { class: run.numeric.includes(place) ? "number" : null }, cell);
}

function showBeside(told) {
  if (told.damaged) return showDamaged(told);
  const names = told.sides.map((side) => side.name);
  document.title = names.join(" and ");
  const rows = (id, lines) => table(id, `${id} of both runs`, [id === "results" ? "Result" : "Setting", ...names], [], lines.map(([label, ...cells]) => h("tr", {}, h("th", { scope: "row" }, label), cells.map((cell) => h("td", {}, cell)))));
  put(
    back(),
    h("header", {}, h("h1", { tabindex: -1 }, "Two runs"),
      h("p", { class: "about" }, told.sides.map((side) => h("span", {}, state(side.state), " ", h("a", { href: link("run", side.name) }, side.name))))),
    h("section", { id: "results", "aria-labelledby": "results-title" }, h("h2", { id: "results-title" }, "What they came to"),
      told.notes.length > 0 && h("ul", { class: "notes" }, told.notes.map((note) => h("li", {}, note))), rows("results", told.results)),
    told.charts.length > 0 && figures("curves", "Learning curves", told.charts),
    h("section", { id: "settings", "aria-labelledby": "settings-title" }, h("h2", { id: "settings-title" }, "Settings that differ"),
      told.settings.length ? rows("settings", told.settings) : h("p", { class: "lead" }, "None."),
      told.further > 0 && h("p", { class: "lead" }, `${told.further} more differ.`)),
  );
  drawAll(told.charts);
}

function code(id, text) {
  return h("div", { class: "code" }, h("pre", { id, tabindex: 0, role: "region", "aria-label": "the command" }, h("code", {}, text)),
    h("button", { type: "button", "data-copy": id, "aria-label": "Copy the command" }, "Copy"));
}

// --- charts -------------------------------------------------------------------------------------------------------

const drawn = new Map();  // what an element shows, as JSON

function figures(id, title, charts) {
  return h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), h("div", { class: "charts" }, charts.map((chart) =>
    h("figure", { id: `figure-${chart.name}` }, chart.title && h("h3", {}, chart.title),
      h("div", { class: "chart", id: `chart-${chart.name}`, role: "img", "aria-label": chart.fact, style: `height: ${chart.height}px` }),
      h("figcaption", {}, chart.fact)))));
}

/** Draws what has changed; what draws is loaded with the first chart. */
function drawAll(charts, anew = false) {
  if (!charts.length) return;
  if (!window.Plotly) return loadPlotly();
  for (const chart of charts) {
    const element = byId(`chart-${chart.name}`), told = JSON.stringify(chart);
    if (!element || (!anew && element === drawn.get(chart.name)?.element && drawn.get(chart.name).told === told)) continue;
    drawn.set(chart.name, { element, told });
    drawInto(element, chart);
  }
}

function loadPlotly() {
  if (byId("plotly")) return;
  const script = h("script", { id: "plotly", src: "plotly.js" });
  script.addEventListener("load", () => drawAll(known.get(view().url)?.charts ?? []));
  document.head.append(script);
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(known.get(view().url)?.charts ?? [], true));

// --- steering -----------------------------------------------------------------------------------------------------

const WHAT = {
  stop: "It stops where it stands. What it has learned is kept.",
  resume: "It goes on from where it stopped. The scheduler does not stop it again.",
  boost: "It is trained to its end, whatever the scheduler says. A line below makes it longer.",
  clone: "One more trial: its values, changed by the lines below. It goes on from its weights where their shape stays the same.",
};
const EXAMPLE = { boost: "train.num_train_epochs=6", clone: "train.learning_rate=0.0003" };
const titled = (deed) => deed.charAt(0).toUpperCase() + deed.slice(1);

/** Asks a person whether it is meant. */
function confirmDeed(deed, trial) {
  const url = view().url, run = known.get(url), line = run.lines.find((one) => one.trial === trial);
  const values = run.columns.map((name, place) => [name, line.cells[place]]).slice(2);
  const changes = EXAMPLE[deed] && h("label", {}, "Changes, one KEY=VALUE a line (none are needed)", h("textarea", { name: "changes", placeholder: EXAMPLE[deed], spellcheck: "false" }));
  const sure = h("button", { class: `sure ${deed}`, type: "submit" }, `${titled(deed)} trial ${trial}`);
  const said = h("p", { role: "status" }), cancel = h("button", { type: "button", "data-close": true }, "Cancel");
  const form = h("form", {}, h("h2", { id: "steer-title" }, `${titled(deed)} trial ${trial}?`), h("p", {}, WHAT[deed]),
    h("dl", {}, values.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))), changes || null, said, h("div", { class: "choice" }, cancel, sure));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    sure.disabled = true;
    say(said, "Waiting for the sweep to take it up …");
    const lines = (form.elements.changes?.value ?? "").split("\n").map((text) => text.trim()).filter(Boolean);
    const { worked, sentence: heard } = await send(url, { do: deed, trial, changes: lines });
    say(said, sentence(heard), !worked);
    sure.disabled = worked;
    cancel.textContent = "Close";
    if (worked) cancel.focus();
    look();
  });
  dialog.replaceChildren(form);
  dialog.showModal();
}

async function send(url, command) {
  try {
    return await ask(`${url}/ask`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(command) });
  } catch (error) {
    return { worked: false, sentence: error.message };
  }
}

function say(line, text, wrong = false) {
  if (line.textContent !== text) line.textContent = text;  // a screen reader says it again otherwise
  line.classList.toggle("wrong", wrong);
}

// --- what a person does -------------------------------------------------------------------------------------------

document.addEventListener("click", ({ target }) => {
  const { deed, trial, more, copy: copied, close } = target.closest("button")?.dataset ?? {};
  if (deed) confirmDeed(deed, trial);
  if (close !== undefined) dialog.close();
  if (copied) copy(target.closest("button"));
  if (more) {
    if (!unfolded.delete(more)) unfolded.add(more);
    again();
  }
});
document.addEventListener("input", ({ target }) => {
  if (target.id === "sought") sought = target.value;
  const name = target.dataset.choose;
  if (name && target.checked) chosen.add(name);
  else if (name) chosen.delete(name);
  if (chosen.size > 2) chosen.delete(chosen.values().next().value);  // the one that was chosen first
  for (const box of all("[data-choose]")) box.checked = chosen.has(box.dataset.choose);
  if (name || target.id === "sought") again();
});

/** Shows what is known once more. */
function again() {
  const { url, show } = view();
  if (known.has(url)) show(known.get(url));
}

// --- looking ------------------------------------------------------------------------------------------------------

let due;

async function look() {
  clearTimeout(due);
  const { url, show } = view();
  try {
    const told = await ask(url);
    if (url !== view().url) return;  // another look is under way
    show(told);
    say(byId("state"), "");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (!main.children.length) put(back(), h("h1", {}, view().name));
    say(byId("state"), error.message);
  }
  clearTimeout(due);
  if (!document.hidden) due = setTimeout(look, EVERY);
}

addEventListener("hashchange", async () => {
  for (const { element } of drawn.values()) Plotly.purge(element);
  drawn.clear();
  dialog.close();
  main.replaceChildren();
  again();
  scrollTo(0, 0);
  await look();
  main.querySelector("h1")?.focus({ preventScroll: true });
});
document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
look();
