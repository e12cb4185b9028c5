// What the live page shows: all runs, one run, or two beside each other.

const chosen = new Set(); // names of runs, at most two
let sought = ""; // what names of runs must hold

function showRuns({ folder, runs, pipelines }) {
  document.title = `Runs in ${folder}`;
  const running = runs.filter((run) => run.state === "running");
  const found = runs.filter((run) => run.name.toLowerCase().includes(sought.toLowerCase()));
  put(
    h("header", {}, h("p", { class: "run" }, folder), h("h1", { tabindex: -1 }, "Runs")),
    section(
      "now",
      "Running now",
      running.length ? h("div", { class: "now" }, running.map(card)) : lead("Nothing runs."),
    ),
    pipelines.length > 0 && section("pipelines", "Pipelines", pipelines.map(pipeline)),
    section(
      "all",
      "All runs",
      runs.length
        ? [tools(runs), runsTable(found)]
        : lead("There is no run here yet: ", h("code", {}, "ftlib sweep FILE"), " makes one."),
    ),
  );
}

function card(run) {
  return h(
    "article",
    { id: `card-${run.name}` },
    h("h3", {}, h("a", { href: link("run", run.name) }, run.title)),
    h("p", { class: "run" }, run.name),
    bar(run),
    h("p", {}, standing(run)),
    h("p", {}, bestOf(run)),
  );
}

function pipeline(one) {
  if (one.damaged)
    return h("article", { id: `pipeline-${one.name}` }, h("h3", {}, one.name), h("p", { class: "wrong" }, one.damaged));
  return h(
    "article",
    { id: `pipeline-${one.name}` },
    h("h3", {}, one.title),
    h("p", { class: "run" }, one.path),
    h("p", { class: "standing" }, [one.verdict, ...one.facts].join(" · ")),
    table(
      `steps-${one.name}`,
      `The steps of ${one.title}, in their order`,
      ["Step", "State", "Does", "Came to", "Began", "Took"],
      [],
      one.steps.map((step) => stepRow(one.name, step)),
    ),
  );
}

function stepRow(name, step) {
  const began = step.began == null ? "" : day(step.began);
  const seconds = step.state === "running" ? Date.now() / 1000 - step.began : step.seconds;
  return h(
    "tr",
    { id: `step-${name}-${step.name}` },
    h("th", { scope: "row" }, step.name),
    h("td", {}, state(step.state), step.why && h("span", { class: "why", title: step.why }, step.why)),
    h("td", {}, step.what),
    h("td", {}, h("span", { class: "places" }, places(name, step))),
    h("td", {}, began),
    h("td", {}, began && duration(seconds)),
  );
}

/** Where a person finds what a step came to: the card of its version, its run, its endpoint. */
const places = (name, step) => [
  step.card
    ? h("a", { href: `pipelines/${api(name, step.name)}/card`, target: "_blank" }, step.made)
    : step.made && !step.run && h("span", {}, step.made),
  step.run && h("a", { href: link("run", step.run) }, step.card ? step.run : step.made || step.run),
  step.urls.map((url) => h("a", { href: url, target: "_blank", rel: "noreferrer" }, url)),
];

function tools(runs) {
  const both = runs.map((run) => run.name).filter((name) => chosen.has(name));
  const ready = both.length === 2;
  return h(
    "div",
    { class: "tools" },
    h("label", { for: "sought" }, "Find"),
    h("input", { id: "sought", type: "search", size: 24, autocomplete: "off" }),
    ready
      ? h("a", { id: "compare", class: "button", href: link("beside", ...both) }, "Show both beside each other")
      : h("span", { id: "choose" }, "Choose two runs to see them beside each other."),
  );
}

function runsTable(runs) {
  const columns = ["", "Run", "State", "Trials", "Best", "vs base", "Began", "Took", "Report"];
  return table(
    "runs",
    "The runs, the newest first",
    columns,
    [3, 4, 5],
    runs.map((run) => {
      const head = h(
        "th",
        { scope: "row" },
        run.damaged ? run.name : h("a", { id: `open-${run.name}`, href: link("run", run.name) }, run.name),
      );
      if (run.damaged)
        return h(
          "tr",
          { id: `row-${run.name}` },
          h("td"),
          head,
          h("td", {}, state("damaged")),
          h("td", { class: "damage", colspan: 6 }, run.damaged),
        );
      const box = h("input", {
        type: "checkbox",
        id: `choose-${run.name}`,
        "data-choose": run.name,
        "aria-label": `Choose ${run.name}`,
      });
      box.checked = chosen.has(run.name);
      const report =
        run.report &&
        h(
          "a",
          { href: `runs/${api(run.name)}/report.html`, target: "_blank", "aria-label": `Report of ${run.name}` },
          "report",
        );
      return h(
        "tr",
        { id: `row-${run.name}` },
        h("td", {}, box),
        head,
        h("td", { title: run.why }, state(run.state)),
        number(`${run.done} of ${run.total}`),
        number(run.best && [h("span", { class: "metric" }, run.metric), ` ${run.best}`]),
        number(run.gain),
        h("td", {}, run.started == null ? "" : day(run.started)),
        h("td", {}, took(run)),
        h("td", {}, report),
      );
    }),
  );
}

const AFTER_STATE = 3; // columns of the leaderboard stand before those that steer

function showRun(run) {
  if (run.damaged) return showDamaged(run);
  document.title = `${run.title}: ${run.state === "running" ? `${run.done} of ${run.total}` : run.state}`;
  put(
    back(),
    h(
      "header",
      {},
      h("p", { class: "run" }, run.name),
      h("h1", { tabindex: -1 }, run.title),
      h(
        "p",
        { class: "about" },
        h("span", {}, state(run.state)),
        run.about.map((fact) => h("span", {}, fact)),
      ),
    ),
    section(
      "verdict",
      run.state === "running" ? "So far" : "Verdict",
      h(
        "p",
        { class: "verdict" },
        run.verdict.map((part) => h("span", {}, part)),
      ),
      run.state === "running" && [bar(run), h("p", { class: "standing" }, standing(run))],
      notes([run.why, ...run.notes].filter(Boolean)),
      run.report &&
        h(
          "p",
          { class: "standing" },
          h("a", { href: `runs/${api(run.name)}/report.html`, target: "_blank" }, "The report of this run"),
        ),
    ),
    run.charts.length > 0 && figures("curves", "Learning curves", run.charts),
    section("leaderboard", "Leaderboard", leaderboard(run), run.tied && lead(run.tied)),
    run.promotion && section("promote", "Promote the winner", code("promotion", run.promotion)),
    section(
      "news",
      "Lately",
      h(
        "ol",
        { class: "news" },
        run.news.map(({ time, text }) =>
          h("li", {}, h("time", {}, time == null ? "" : clock(time)), h("span", {}, text)),
        ),
      ),
    ),
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
  return table(
    "trials",
    "The trials, best first",
    columns,
    numeric,
    run.lines.map((line) => {
      const cells = line.cells.map((cell, place) => cellOf(run, line, cell, place));
      if (steered)
        cells.splice(
          AFTER_STATE,
          0,
          h(
            "td",
            {},
            h(
              "span",
              { class: "deeds" },
              line.deeds.map((deed) => deedButton(deed, line.trial)),
            ),
          ),
        );
      return h("tr", { class: line.kind || null, id: `trial-${line.trial}` }, cells);
    }),
  );
}

function deedButton(deed, trial) {
  return h(
    "button",
    {
      type: "button",
      id: `${deed}-${trial}`,
      "data-deed": deed,
      "data-trial": trial,
      "aria-label": `${titled(deed)} trial ${trial}`,
    },
    titled(deed),
  );
}

function cellOf(run, line, cell, place) {
  if (place === 1)
    return h(
      "th",
      { scope: "row" },
      cell,
      line.tags.map((tag) => [" ", h("span", { class: "tag" }, tag)]),
    );
  if (place === 2)
    return h("td", {}, state(cell), line.why && h("span", { class: "why", title: line.why }, line.why));
  return h("td", { class: run.numeric.includes(place) ? "number" : null }, cell);
}

function showBeside(told) {
  if (told.damaged) return showDamaged(told);
  const names = told.sides.map((side) => side.name);
  document.title = names.join(" and ");
  const rows = (id, lines) =>
    table(
      id,
      `${id} of both runs`,
      [id === "results" ? "Result" : "Setting", ...names],
      [],
      lines.map(([label, ...cells]) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, label),
          cells.map((cell) => h("td", {}, cell)),
        ),
      ),
    );
  put(
    back(),
    h(
      "header",
      {},
      h("h1", { tabindex: -1 }, "Two runs"),
      h(
        "p",
        { class: "about" },
        told.sides.map((side) =>
          h("span", {}, state(side.state), " ", h("a", { href: link("run", side.name) }, side.name)),
        ),
      ),
    ),
    section("results", "What they came to", notes(told.notes), rows("results", told.results)),
    told.charts.length > 0 && figures("curves", "Learning curves", told.charts),
    section(
      "settings",
      "Settings that differ",
      told.settings.length ? rows("settings", told.settings) : lead("None."),
      told.further > 0 && lead(`${told.further} more differ.`),
    ),
  );
  drawAll(told.charts);
}

function code(id, text) {
  return h(
    "div",
    { class: "code" },
    h("pre", { id, tabindex: 0, role: "region", "aria-label": "the command" }, h("code", {}, text)),
    h("button", { type: "button", "data-copy": id, "aria-label": "Copy the command" }, "Copy"),
  );
}

function figures(id, title, charts) {
  return section(
    id,
    title,
    h(
      "div",
      { class: "charts" },
      charts.map((chart) =>
        h(
          "figure",
          { id: `figure-${chart.name}` },
          chart.title && h("h3", {}, chart.title),
          h("div", {
            class: "chart",
            id: `chart-${chart.name}`,
            role: "img",
            "aria-label": chart.fact,
            style: `height: ${chart.height}px`,
          }),
          h("figcaption", {}, chart.fact),
        ),
      ),
    ),
  );
}
