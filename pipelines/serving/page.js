// The page of `straightshot serve`: sends a prompt to this server and shows what it answers.
// Everything that came from elsewhere is set as text, never as markup.
"use strict";

const at = (id) => document.getElementById(id);

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

async function ask(path, body) {
  const token = at("token").value;
  const headers = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body) } : { headers });
  if (answer.status === 401) at("token-label").hidden = false;
  const document_ = await answer.json();
  if (!answer.ok) throw new Error(document_.error.message);
  return document_;
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").className = bad ? "bad" : "";
}

function list(target, pairs) {
  target.replaceChildren(...pairs.flatMap(([name, value]) => [
    element("dt", name),
    element("dd", typeof value === "number" ? value.toLocaleString("en") : value ?? "–"),
  ]));
}

async function showModel() {
  const answer = await ask("v1/models");
  const { id, card } = answer.data[0];
  at("model").textContent = id;
  list(at("about"), Object.entries(card.about));
  at("n").max = answer.limits.images;
  at("prompt").maxLength = answer.limits.prompt_characters;
  at("steps").placeholder = card.about.steps;
  at("guidance").placeholder = card.about.guidance;
  at("guidance-label").hidden = card.about.kind.startsWith("consistency");
  at("upsample-label").hidden = card.about["prompt upsampler"] === "no";
  const measured = at("measured");
  measured.replaceChildren();
  if (card.measured) {
    const numbers = element("dl");
    list(numbers, card.measured.numbers.map(({ name, value }) => [name, value]));
    measured.append(element("h3", card.measured.how), numbers, element("p", card.measured.legend, "legend"));
  }
}

function figure(image, answer, number) {
  const made = element("figure");
  const link = element("a");
  const shown = element("img");
  shown.src = link.href = `data:image/png;base64,${image.b64_json}`;
  shown.alt = image.revised_prompt;
  shown.onload = () => { if (shown.naturalWidth < 128) shown.className = "small"; };
  link.download = `${answer.seed}-${String(number).padStart(3, "0")}.png`;
  link.title = "Save it";
  link.append(shown);
  const how = image.upsampling === "rewritten" ? "" : ` (the prompt, ${image.upsampling})`;
  made.append(link, element("figcaption", image.revised_prompt + how));
  return made;
}

function showImages(prompt, answer, seconds) {
  const result = element("section", "", "result");
  const images = element("div", "", "images");
  images.append(...answer.data.map((image, number) => figure(image, answer, number)));
  const steps = `${answer.steps} step${answer.steps === 1 ? "" : "s"}`;
  const about = `${answer.model}, seed ${answer.seed}, ${steps}, ${seconds.toFixed(1)} s`;
  result.append(element("h3", prompt), element("p", about, "sub"), images);
  at("results").prepend(result);
}

function request() {
  const body = { prompt: at("prompt").value, n: Number(at("n").value), upsample: at("upsample").checked };
  if (at("seed").value) body.seed = Number(at("seed").value);
  if (at("steps").value) body.steps = Number(at("steps").value);
  if (at("guidance").value) body.guidance_scale = Number(at("guidance").value);
  return body;
}

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = request();
  at("generate").disabled = true;
  say("generating …");
  const began = performance.now();
  try {
    const answer = await ask("v1/images/generations", body);
    showImages(body.prompt, answer, (performance.now() - began) / 1000);
    say("");
    if (answer.model !== at("model").textContent) await showModel();
  } catch (error) {
    say(error.message, true);
  }
  at("generate").disabled = false;
});

at("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    at("form").requestSubmit();
  }
});

const refresh = () => showModel().catch((error) => say(error.message, true));
at("token").addEventListener("change", refresh);
refresh();
