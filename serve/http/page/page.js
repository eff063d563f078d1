// The page: asks for a list, shows it, has it explained.

import { ask, Refusal } from "./api.js";
import { element, titled } from "./elements.js";
import { watch } from "./figures.js";
import { example, history, searching } from "./history.js";

const at = (id) => document.getElementById(id);
const DRAWN = 50; // items of a list that the server draws, at most
const LATER = 10; // times that a busy server is asked again for a picture
let asked = null; // what the list was asked with
let picture = null; // where the picture is kept

const path = (end) => (at("model").value ? `${end}?${new URLSearchParams({ model: at("model").value })}` : end);

function wanted() {
  const mode = at("mode").value;
  const body = { items: history(), k: Number(at("k").value), exclude_history: at("exclude").checked };
  if (mode) body.mode = mode;
  if (mode === "tolerant") body.slack = Number(at("slack").value);
  if (mode === "sampled" || mode === "relaxed") body.seed = Number(at("seed").value);
  return body;
}

function fail(error) {
  at("error").textContent = error.message;
  at("error").hidden = false;
  const field = error.field === "items" ? "search" : error.field;
  if (["search", "k", "mode", "slack", "seed", "model"].includes(field)) at(field).setAttribute("aria-invalid", "true");
}

function forget() {
  at("error").hidden = true;
  for (const field of document.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

async function recommend(event) {
  event.preventDefault();
  forget();
  const body = wanted();
  if (!body.items.length) {
    fail(new Refusal(0, "add at least one item to the history", "items"));
    at("search").focus();
    return;
  }
  const button = at("recommend");
  button.disabled = true;
  button.textContent = "Asking …";
  const start = performance.now();
  try {
    const answer = await ask(path("v1/recommend"), { body: { ...body, stats: true } });
    show(answer, performance.now() - start);
    asked = { body, path: path("v1/explain") };
    at("explain").disabled = false;
    unpicture();
  } catch (error) {
    fail(error);
  } finally {
    button.disabled = false;
    button.textContent = "Recommend";
  }
}

function show(answer, milliseconds) {
  at("start").hidden = true;
  const best = answer.items[0]?.score ?? 0;
  at("list").replaceChildren(...answer.items.map((one) => {
    const share = Math.exp(one.score - best);
    const bar = element("span", { class: "bar" });
    bar.style.setProperty("--share", share.toFixed(4));
    const score = element("span", { class: "score" }, one.score.toFixed(2).replace("-", "\u2212"));
    const identifier = element("span", { class: "identifier" }, (one.identifier ?? []).join(" "));
    return element("li", {}, ...titled(one), identifier, score, bar);
  }));
  const parts = [`${answer.items.length} items in ${milliseconds.toFixed(0)} ms`];
  if (answer.stats) parts.push(counted(answer.stats.target_calls, "target call"));
  if (answer.unknown_items) parts.push(`${counted(answer.unknown_items, "item")} of the history not in the catalog`);
  if (answer.shortened) parts.push("history shortened to fit");
  parts.push(`model ${answer.model_version}, catalog ${answer.catalog_version}`);
  at("told").textContent = parts.join(" · ");
}

const counted = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;

function unpicture() {
  if (picture) URL.revokeObjectURL(picture);
  picture = null;
  at("picture").hidden = true;
  at("picture").replaceChildren();
  at("picture-told").textContent = "What was drafted, what the target needed of it, and what that saved.";
}

async function explain() {
  const { k, ...body } = asked.body;
  at("explain").disabled = true;
  at("picture-told").textContent = "Drawing …";
  try {
    const file = await patient(() => ask(asked.path, { body: { ...body, k: Math.min(k, DRAWN) }, as: "blob" }));
    unpicture();
    picture = URL.createObjectURL(file);
    const image = element("img", { src: picture, alt: "The tree of what was drafted, needed and missed" });
    at("picture").append(image);
    at("picture").hidden = false;
    const link = element("a", { href: picture, download: "explained.svg" }, "Save the picture");
    at("picture-told").replaceChildren(k > DRAWN ? `The first ${DRAWN} items. ` : "", link);
  } catch (error) {
    at("picture-told").textContent = error.message;
  } finally {
    at("explain").disabled = false;
  }
}

// Pictures are drawn one at a time: while the server draws another, this one is asked for again.
async function patient(once, left = LATER) {
  try {
    return await once();
  } catch (error) {
    if (error.status !== 429 || !left) throw error;
    await new Promise((later) => setTimeout(later, 1000 * (error.retryAfter || 1)));
    return patient(once, left - 1);
  }
}

function models(served) {
  const names = served.map((one) => one.name);
  const shown = [...at("model").options].map((one) => one.value);
  if (names.join("\n") !== shown.join("\n")) {
    const chosen = at("model").value;
    at("model").replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    if (names.includes(chosen)) at("model").value = chosen;
  }
  at("model-field").hidden = names.length < 2;
}

at("mode").addEventListener("change", () => {
  at("slack-field").hidden = at("mode").value !== "tolerant";
  at("seed-field").hidden = !["sampled", "relaxed"].includes(at("mode").value);
});
at("ask").addEventListener("submit", recommend);
at("example").addEventListener("click", async (event) => {
  await example().catch(fail);
  await recommend(event);
});
at("explain").addEventListener("click", explain);
searching(() => at("model").value);
watch(models);
