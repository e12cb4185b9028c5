// The live page looks every two seconds, shows what the address asks for, and sends what a person asks of a trial.

const EVERY = 2000; // milliseconds between two looks
const main = byId("main");
const dialog = byId("steer");

// --- asking ---------------------------------------------------------------------------------------------------------

const tags = new Map(); // of the answers that are known, by their URL
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

// --- addresses ------------------------------------------------------------------------------------------------------

const link = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;
const api = (...parts) => parts.map(encodeURIComponent).join("/");

/** What the address asks for: where it is asked, and what shows it. */
function view() {
  const [kind, a, b] = location.hash.slice(2).split("/").map(unquoted);
  if (kind === "run" && a) return { url: `api/runs/${api(a)}`, show: showRun, name: a };
  const both = `api/beside?a=${api(a ?? "")}&b=${api(b ?? "")}`;
  if (kind === "beside" && a && b) return { url: both, show: showBeside, name: `${a} and ${b}` };
  return { url: "api/runs", show: showRuns, name: "Runs" };
}

function unquoted(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// --- charts ---------------------------------------------------------------------------------------------------------

const drawn = new Map(); // what an element shows, as JSON

/** Draws what has changed; what draws is loaded with the first chart. */
function drawAll(charts, anew = false) {
  if (!charts.length) return;
  if (!window.Plotly) return loadPlotly();
  for (const chart of charts) {
    const element = byId(`chart-${chart.name}`);
    const told = JSON.stringify(chart);
    const before = drawn.get(chart.name);
    if (!element || (!anew && element === before?.element && told === before.told)) continue;
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

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  drawAll(known.get(view().url)?.charts ?? [], true),
);

// --- steering -------------------------------------------------------------------------------------------------------

const WHAT = {
  stop: "It stops where it stands. What it has learned is kept.",
  resume: "It goes on from where it stopped. The scheduler does not stop it again.",
  boost: "It is trained to its end, whatever the scheduler says. A line below makes it longer.",
  clone: "One more trial with its values, changed by the lines below, from its weights where they still fit.",
};
const EXAMPLE = { boost: "train.num_train_epochs=6", clone: "train.learning_rate=0.0003" };
const titled = (deed) => deed.charAt(0).toUpperCase() + deed.slice(1);

/** Asks a person whether it is meant. */
function confirmDeed(deed, trial) {
  const { url } = view();
  const run = known.get(url);
  const line = run.lines.find((one) => one.trial === trial);
  const values = run.columns.map((name, place) => [name, line.cells[place]]).slice(2);
  const changes =
    EXAMPLE[deed] &&
    h(
      "label",
      {},
      "Changes, one KEY=VALUE a line (none are needed)",
      h("textarea", { name: "changes", placeholder: EXAMPLE[deed], spellcheck: "false" }),
    );
  const sure = h("button", { class: `sure ${deed}`, type: "submit" }, `${titled(deed)} trial ${trial}`);
  const said = h("p", { role: "status" });
  const cancel = h("button", { type: "button", "data-close": true }, "Cancel");
  const form = h(
    "form",
    {},
    h("h2", { id: "steer-title" }, `${titled(deed)} trial ${trial}?`),
    h("p", {}, WHAT[deed]),
    h(
      "dl",
      {},
      values.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    ),
    changes || null,
    said,
    h("div", { class: "choice" }, cancel, sure),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    sure.disabled = true;
    say(said, "Waiting for the sweep to take it up …");
    const lines = (form.elements.changes?.value ?? "")
      .split("\n")
      .map((text) => text.trim())
      .filter(Boolean);
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
    return await ask(`${url}/ask`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(command),
    });
  } catch (error) {
    return { worked: false, sentence: error.message };
  }
}

function say(line, text, wrong = false) {
  if (line.textContent !== text) line.textContent = text; // a screen reader says it again otherwise
  line.classList.toggle("wrong", wrong);
}

// --- what a person does ---------------------------------------------------------------------------------------------

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
  if (chosen.size > 2) chosen.delete(chosen.values().next().value); // the one that was chosen first
  for (const box of all("[data-choose]")) box.checked = chosen.has(box.dataset.choose);
  if (name || target.id === "sought") again();
});

/** Shows what is known once more. */
function again() {
  const { url, show } = view();
  if (known.has(url)) show(known.get(url));
}

// --- looking --------------------------------------------------------------------------------------------------------

let due;

async function look() {
  clearTimeout(due);
  const { url, show } = view();
  try {
    const told = await ask(url);
    if (url !== view().url) return; // another look is under way
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
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});
look();
