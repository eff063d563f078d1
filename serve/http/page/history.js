// The history: a box that searches, and the items that were added, oldest first.

import { ask, Refusal } from "./api.js";
import { element, titled } from "./elements.js";

const SHOWN = 8; // suggestions
const EXAMPLE = 4; // items of the example
const MOST_FOUND = 50; // items that the server finds at once
const MOST = 200; // items that are pasted at once
const LONGEST = 200; // letters of a query that the server takes
const ID = /^[\w.:-]+$/; // what may be an id, and is no title
const box = document.getElementById("search");
const found = document.getElementById("found");
const list = document.getElementById("history");
const clear = document.getElementById("clear");
const status = document.getElementById("hint");
const HINT = status.textContent;
let items = []; // {item, title, known}
let options = []; // what the list of suggestions shows
let active = -1;
let asking = null; // the search on its way: {query, stop, done}
let model = () => "";

export const history = () => items.map((one) => one.item);

// chosenModel(): the model whose catalog is searched, or "".
export function searching(chosenModel) {
  model = chosenModel;
}

async function search(query, signal, limit = SHOWN) {
  const asked = new URLSearchParams({ query, limit });
  if (model()) asked.set("model", model());
  return (await ask(`v1/items?${asked}`, { signal })).items;
}

function suggest() {
  const query = box.value.trim();
  asking?.stop.abort();
  asking = null;
  status.textContent = HINT;
  if (!query) return show([]);
  const stop = new AbortController();
  const done = search(query.slice(0, LONGEST), stop.signal).then((answer) => {
    show(answer);
    if (!answer.length) status.textContent = `No item has ${query}.`;
  }, (error) => {
    if (error instanceof Refusal) status.textContent = error.message;
  });
  asking = { query, stop, done };
  return done;
}

function show(answer) {
  options = answer;
  found.replaceChildren(...options.map((option, number) => {
    const row = element("li", { role: "option", id: `option-${number}` }, ...titled(option));
    row.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the box keeps the focus
      add(option);
    });
    return row;
  }));
  found.hidden = !options.length;
  box.setAttribute("aria-expanded", String(options.length > 0));
  choose(options.length ? 0 : -1);
}

function choose(number) {
  active = number;
  for (const [place, row] of [...found.children].entries()) {
    row.setAttribute("aria-selected", String(place === number));
    if (place === number) row.scrollIntoView({ block: "nearest" });
  }
  if (number < 0) box.removeAttribute("aria-activedescendant");
  else box.setAttribute("aria-activedescendant", `option-${number}`);
}

function add(...more) {
  items.push(...more.map(({ item, title, known = true }) => ({ item, title, known })));
  box.value = "";
  suggest();
  draw();
}

function remove(place) {
  const [gone] = items.splice(place, 1);
  draw();
  status.textContent = `Removed ${gone.title || gone.item}.`;
  box.focus();
}

function draw() {
  list.replaceChildren(...items.map((one, place) => {
    const button = element("button", { type: "button", "aria-label": `Remove ${one.title || one.item}` }, "×");
    button.addEventListener("click", () => remove(place));
    const row = element("li", one.known ? {} : { class: "unknown" }, ...titled(one), button);
    if (!one.known) row.querySelector(".title").textContent = "not in the catalog";
    return row;
  }));
  clear.hidden = !items.length;
}

// What was pasted: a JSON list or history line, lines, or ids with commas or spaces between them.
export function entries(text) {
  try {
    const value = JSON.parse(text);
    const told = Array.isArray(value) ? value : value.items;
    if (Array.isArray(told)) return told.map(String);
  } catch { /* it is not JSON */ }
  const lines = text.split(/[\n\t]/).map((line) => line.trim()).filter(Boolean);
  if (lines.length > 1) return lines;
  const parts = text.split(/[\s,;]+/).filter(Boolean);
  const ids = text.includes(",") || parts.every((part) => /\d/.test(part));
  return ids && parts.every((part) => ID.test(part)) ? parts : lines;
}

// A history of items that are there, for those who look at this for the first time.
export async function example() {
  if (items.length) return;
  const some = await search("", undefined, MOST_FOUND);
  const step = Math.max(1, Math.floor(some.length / EXAMPLE));
  add(...some.filter((_, place) => place % step === 0).slice(0, EXAMPLE));
}

async function resolve(texts) {
  status.textContent = `Looking for ${texts.length} items …`;
  const added = await Promise.all(texts.slice(0, MOST).map(async (text) => {
    const [first] = await search(text.slice(0, LONGEST));
    return first && (first.item === text || !ID.test(text)) ? first : { item: text, title: null, known: false };
  }));
  add(...added);
  const lost = added.filter((one) => one.known === false).length;
  const left = texts.length - added.length;
  status.textContent = `Added ${added.length - lost} items`
    + (lost ? `; ${lost} not in the catalog` : "") + (left ? `; left ${left} out` : "") + ".";
}

async function enter() {
  const text = box.value.trim();
  const several = entries(text);
  if (several.length > 1) return resolve(several);
  if (asking?.query !== text) suggest();
  await asking.done;
  if (options[active]) add(options[active]);
}

box.addEventListener("input", suggest);
box.addEventListener("blur", () => show([]));
box.addEventListener("focus", suggest);
box.addEventListener("paste", (event) => {
  const several = entries(event.clipboardData.getData("text"));
  if (several.length < 2 || box.value) return;
  event.preventDefault();
  resolve(several).catch((error) => { status.textContent = error.message; });
});
box.addEventListener("keydown", (event) => {
  const last = options.length - 1;
  if (event.key === "Enter" && box.value.trim()) {
    event.preventDefault();
    enter().catch((error) => { status.textContent = error.message; });
  } else if (event.key === "ArrowDown" && last >= 0) {
    event.preventDefault();
    choose(active >= last ? 0 : active + 1);
  } else if (event.key === "ArrowUp" && last >= 0) {
    event.preventDefault();
    choose(active <= 0 ? last : active - 1);
  } else if (event.key === "Escape") {
    show([]);
  } else if (event.key === "Backspace" && !box.value && items.length) {
    remove(items.length - 1);
  }
});
clear.addEventListener("click", () => {
  items = [];
  draw();
  box.focus();
});
