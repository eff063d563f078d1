// Live figures: asked for every second while somebody looks.

import { ask } from "./api.js";

const EVERY = 1000; // milliseconds
const KEPT = 60; // readings of users a second that the line shows
const at = (id) => document.getElementById(id);
const rates = Array(KEPT).fill(0);

const number = (value, digits = 0) => (value == null ? "–" : value.toFixed(digits));
const time = (ms) => (ms == null ? "–" : ms < 1000 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(1)} s`);
const say = (id, text) => {
  if (at(id).textContent !== text) at(id).textContent = text;
};

function show({ lately, queue, flying, models }) {
  const rate = lately.users_per_second;
  say("rate", number(rate, rate < 10 ? 1 : 0));
  say("saved", lately.calls_saved == null ? "–" : `${Math.round(100 * lately.calls_saved)} %`);
  say("calls", lately.target_calls == null ? "" : `${lately.target_calls.toFixed(1)} of ${lately.plain_calls.toFixed(1)} a user`);
  say("p50", time(lately.p50));
  say("p95", lately.p95 == null ? "" : `p95 ${time(lately.p95)}`);
  say("queue", String(queue));
  say("flying", `${flying} in flight${lately.refused ? `, ${lately.refused} refused` : ""}`);
  say("batch", number(lately.batch, 1));
  say("serving", models.map((one) =>
    `${one.name} ${one.version}, catalog ${one.catalog}: ${one.items.toLocaleString("en")} items`).join(" · "));
  draw(rate);
}

function draw(rate) {
  rates.push(rate);
  rates.shift();
  const most = Math.max(...rates, 1);
  const points = rates.map((one, place) => `${((120 * place) / (KEPT - 1)).toFixed(2)},${(30 - (28 * one) / most).toFixed(2)}`);
  at("line").setAttribute("points", points.join(" "));
  at("under").setAttribute("points", `0,32 ${points.join(" ")} 120,32`);
}

export async function watch(models) {
  for (;;) {
    if (document.hidden) {
      await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
      continue;
    }
    try {
      const told = await ask("v1/figures");
      show(told);
      models(told.models);
      document.body.classList.remove("lost");
    } catch {
      document.body.classList.add("lost");
      say("serving", "The server cannot be reached.");
    }
    await new Promise((later) => setTimeout(later, EVERY));
  }
}
