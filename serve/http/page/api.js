// Asks the server; where it wants a token, asks for that once, and then goes on.

const KEPT = "specbeam-token"; // in this tab only
const form = document.getElementById("token-form");
const field = document.getElementById("token");
let given = null; // the promise of a token, while one is asked for

export class Refusal extends Error {
  constructor(status, message, field, retryAfter) {
    super(field ? `${field}: ${message}` : message);
    Object.assign(this, { status, field, retryAfter });
  }
}

export async function ask(path, { body, signal, as = "json" } = {}) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  const token = sessionStorage.getItem(KEPT);
  if (token) headers.Authorization = `Bearer ${token}`;
  const method = body ? "POST" : "GET";
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal }).catch((error) => {
    throw error.name === "AbortError" ? error : new Refusal(0, "the server cannot be reached");
  });
  if (answer.status === 401) {
    await newToken();
    return ask(path, { body, signal, as });
  }
  if (!answer.ok) throw await refusal(answer);
  return answer[as]();
}

async function refusal(answer) {
  const content = await answer.json().catch(() => null);
  const { message, field } = content?.error ?? {};
  const retry = Number(answer.headers.get("Retry-After")) || 0;
  return new Refusal(answer.status, message || `the server answers ${answer.status}`, field, retry);
}

function newToken() {
  given ??= new Promise((resolve) => {
    const refused = sessionStorage.getItem(KEPT) !== null;
    form.querySelector("label").textContent = refused
      ? "This server refuses that token" : "This server asks for a token";
    sessionStorage.removeItem(KEPT);
    form.hidden = false;
    field.focus();
    form.onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEPT, field.value.trim());
      field.value = "";
      form.hidden = true;
      given = null;
      resolve();
    };
  });
  return given;
}
