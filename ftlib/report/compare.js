// Everything that models wrote becomes text, never markup: only textContent and append() put it here.
const KEYS = { ArrowLeft: "left", a: "left", ArrowRight: "right", l: "right", " ": "tie" };
const VOTER = "ftlib-voter";  // in sessionStorage: gone with the tab
const $ = byId;
let voter = null;
let pair = null;  // the one that is shown
let asking = false;

/** The server's answer. Throws an Error with its own sentence. */
async function ask(name, question = {}) {
  let response;
  try {
    const headers = { "content-type": "application/json" };
    response = await fetch(`/api/${name}`, { method: "POST", headers, body: JSON.stringify(question), cache: "no-store" });
  } catch {
    throw new Error("ftlib compare does not answer: is it still running in the terminal?");
  }
  const told = await response.json();
  if (!response.ok) throw new Error(told.error);
  return told;
}

/** Asks, and shows what comes of it. One question at a time: a second key press is no second vote. */
async function turn(name, question = {}) {
  if (asking) return;
  asking = true;
  try {
    show(await ask(name, { ...question, voter }));
    $("wrong").textContent = "";
  } catch (error) {
    $("wrong").textContent = error.message;
  }
  asking = false;
}

function show(told) {
  pair = told.over ? null : told.pair;
  $("who").hidden = true;
  $("over").hidden = !told.over;
  $("judging").hidden = Boolean(told.over);
  $("progress").textContent = told.over ? "" : `${told.judged + 1} of ${told.total}`;
  if (told.over) return;
  [$("bar").value, $("bar").max] = [told.judged, told.total];
  $("prompt").replaceChildren(...told.prompt.map(turnOf));
  $("left").textContent = told.left;
  $("right").textContent = told.right;
  $("back").disabled = told.judged === 0;
  scrollTo(0, 0);
  $("title").focus();  // so that space is a tie again after a click on a button
}

function turnOf({ role, content }) {
  const [made, who, text] = ["div", "h2", "pre"].map((tag) => document.createElement(tag));
  made.className = "turn";
  [who.textContent, text.textContent, text.dir] = [role, content, "auto"];
  made.append(who, text);
  return made;
}

function vote(side) {
  if (pair !== null) turn("vote", { pair, side });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || (pair === null && $("over").hidden)) return;
  if (event.key === " " && event.target instanceof HTMLButtonElement) return;  // it presses that button
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key in KEYS) vote(KEYS[key]);
  else if (key === "u") turn("back");
  else return;
  event.preventDefault();
});
for (const button of document.querySelectorAll("[data-side]")) {
  button.addEventListener("click", () => vote(button.dataset.side));
}
$("back").addEventListener("click", () => turn("back"));
$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  voter = $("voter").value.trim();
  sessionStorage.setItem(VOTER, voter);
  turn("next");
});

async function begin() {
  try {
    voter = (await ask("begin")).voter ?? sessionStorage.getItem(VOTER);
  } catch (error) {
    $("wrong").textContent = error.message;
    return;
  }
  if (voter) await turn("next");
  $("who").hidden = Boolean(pair) || !$("over").hidden;
  if (!$("who").hidden) $("voter").focus();
}
begin();
