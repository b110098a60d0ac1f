// The page: a list of pictures, the settings, and what happens to each picture.

import { Problem, follow, getJson, request, setToken, upload } from "/page/api.js";
import { Viewer } from "/page/viewer.js";

const find = (id) => document.getElementById(id);
const PREVIEW_PX = 320;
const PREVIEW_AFTER_MS = 350;
const PURPOSES = {
  noise: "removes noise",
  "JPEG blocks": "removes JPEG blocks",
  "motion blur": "corrects camera shake",
  "too small": "enlarges",
  "too dark": "brightens dark camera RAW",
};

const pictures = []; // in the order of the list
let models = [];
let current = null;
let modelWasChosen = false;

const viewer = new Viewer((error) => tell(error));

// Messages

function tell(message) {
  const isProblem = message instanceof Error;
  find("status").textContent = isProblem ? message.message : message;
  find("status").classList.toggle("bad", isProblem);
  if (message.status === 401) find("access").showModal();
}

document.addEventListener("waiting", (event) => tell(event.detail));

find("access").addEventListener("close", () => {
  setToken(find("token").value.trim());
  find("token").value = "";
  start();
});

// Models and settings

function purposeOf(model) {
  const purposes = model.corrects.map((problem) => (problem === "too small" && model.scale > 1 ? `enlarges ${model.scale} times` : PURPOSES[problem] ?? problem));
  return purposes.join(", ") + (model.colors === "gray" ? ", for gray pictures" : "");
}

function describe(model) {
  const text = purposeOf(model);
  const raw = model.takes_raw_only ? " Takes camera RAW files only." : "";
  const score = model.scores[0] ? ` ${model.scores[0].data}: ${model.scores[0].psnr_db.toFixed(2)} dB.` : "";
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.${raw}${score} License: ${model.license}.`;
}

function chosenModel() {
  return models.find((model) => model.name === find("model").value);
}

function showPurpose() {
  const model = chosenModel();
  find("strength").disabled = Boolean(model?.takes_raw_only); // these models have no partial effect
  const advice = current?.about?.advice.find((one) => one.model === model?.name);
  find("purpose").textContent = model ? `${advice ? `Advised: ${advice.reason}. ` : ""}${describe(model)}` : "";
}

/** Which settings a picture is restored with: those that are chosen now. */
function options(picture) {
  const query = new URLSearchParams({ model: find("model").value, picture: picture.about.id });
  if (find("strength").value !== "100" && !find("strength").disabled) query.set("strength", find("strength").value / 100);
  return query;
}

find("model").addEventListener("change", () => {
  modelWasChosen = true;
  showPurpose();
  showEffect();
});
find("strength").addEventListener("input", () => {
  find("strength-value").textContent = `${find("strength").value} %`;
  showEffect();
});

/** Of a changed setting. */
function showEffect() {
  if (current?.result) tell("Restore again to apply the changed settings.");
  else preview();
}

// Pictures

function add(files) {
  for (const file of files) {
    const picture = { name: file.name, state: "uploading", progress: 0, abort: new AbortController() };
    pictures.push(picture);
    picture.element = makeElement(picture);
    find("pictures").append(picture.element);
    send(picture, file);
    if (!current) choose(picture);
  }
}

async function send(picture, file) {
  try {
    picture.about = await upload(file, (done) => update(picture, { progress: done }), picture.abort.signal);
    const view = await request(`/v1/pictures/${picture.about.id}/view?longest_px=16`);
    picture.size = view.headers.get("X-Picture-Size").split("x").map(Number);
    update(picture, { state: "ready" });
    if (picture === current) choose(picture);
  } catch (error) {
    fail(picture, error);
  }
}

function choose(picture) {
  current = picture;
  for (const one of pictures) {
    one.element.classList.toggle("current", one === picture);
    one.element.querySelector(".name").setAttribute("aria-current", one === picture ? "true" : "false");
  }
  const advised = picture?.about?.advice[0]?.model;
  if (advised && !modelWasChosen) find("model").value = advised;
  showPurpose();
  show();
  preview();
}

function show() {
  const picture = current;
  const isReady = Boolean(picture?.size);
  const result = picture?.result;
  viewer.show(isReady ? { url: `/v1/pictures/${picture.about.id}/view`, size: picture.size } : null, result ?? null);
  const lines = [];
  if (isReady) {
    lines.push(`${picture.about.kind}, ${picture.size.join(" × ")} px`);
    if (picture.about.pages > 1) lines.push(`${picture.about.pages} pages, of which the first is shown`);
    if (result) lines.push(`result: ${result.size.join(" × ")} px, ${result.model}, ${result.seconds}`);
  }
  find("about").textContent = lines.join("; ");
  find("notes").replaceChildren(...(picture?.notes ?? []).map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  updateButtons();
}

function updateButtons() {
  const canRestore = (picture) => picture.size && !["queued", "running"].includes(picture.state);
  find("restore").disabled = !current || !canRestore(current);
  find("restore-all").disabled = pictures.filter(canRestore).length < 2;
  find("download-all").hidden = pictures.filter((picture) => picture.result).length < 2;
}

async function restore(picture) {
  picture.job?.abort.abort();
  const job = { abort: new AbortController(), start: performance.now() };
  picture.job = job;
  const earlier = { result: picture.result ?? null, notes: picture.notes ?? [] };
  update(picture, { state: "queued", progress: 0, result: null, notes: [] });
  tell(`Restoring ${picture.name}…`);
  if (picture === current) show();
  try {
    const query = options(picture);
    const model = chosenModel();
    if (find("format").value) query.set("format", find("format").value);
    const headers = { Prefer: "respond-async" };
    let state = await getJson(`/v1/restore?${query}`, { method: "POST", headers, signal: job.abort.signal });
    job.id = state.id;
    for await (state of follow(job.id, job.abort.signal)) {
      update(picture, { state: state.state, progress: state.progress, before: state.waiting_before, error: state.files[0].error });
    }
    if (state.state !== "done") {
      keep(picture, job, earlier);
      if (picture === current && state.files[0].error) tell(new Error(state.files[0].error));
      return;
    }
    const view = `/v1/jobs/${job.id}/files/0/view`;
    const response = await request(`${view}?longest_px=16`);
    const size = response.headers.get("X-Picture-Size").split("x").map(Number);
    const seconds = `${((performance.now() - job.start) / 1000).toFixed(1)} s`;
    const file = state.files[0];
    const result = { url: view, size, scale: size[0] / picture.size[0], model: model.name, seconds, download: file.url, name: file.result };
    update(picture, { result, notes: [...file.warnings, ...file.notes] });
    tell(`${picture.name} is restored.`);
    if (picture === current) show();
  } catch (error) {
    keep(picture, job, earlier);
    fail(picture, error);
  }
}

/** An earlier result stays if a later restoration fails or is cancelled. */
function keep(picture, job, earlier) {
  if (picture.job !== job || !earlier.result) return;
  update(picture, picture.state === "failed" ? earlier : { ...earlier, state: "done" });
  if (picture === current) show();
}

async function cancel(picture) {
  picture.abort.abort();
  const job = picture.job;
  job?.abort.abort();
  if (job?.id) await request(`/v1/jobs/${job.id}`, { method: "DELETE" }).catch(tell);
  update(picture, { state: picture.result ? "done" : picture.about ? "ready" : "cancelled", progress: 0 });
  tell(`${picture.name} is cancelled.`);
}

async function remove(picture) {
  pictures.splice(pictures.indexOf(picture), 1);
  picture.element.remove();
  if (current === picture) choose(pictures[0] ?? null);
  updateButtons();
  await cancel(picture);
  tell("");
  if (picture.about) request(`/v1/pictures/${picture.about.id}`, { method: "DELETE" }).catch(() => {});
}

/** Once the server answers and still has the result: a browser would only note that a download failed. */
async function download(picture) {
  try {
    await request(picture.result.download, { headers: { Range: "bytes=0-0" } });
    picture.parts.link.click();
  } catch (error) {
    tell(error);
  }
}

function fail(picture, error) {
  if (error.name === "AbortError") return;
  update(picture, { state: "failed", error: error.message });
  tell(error);
}

function update(picture, changes) {
  Object.assign(picture, changes);
  drawElement(picture);
  updateButtons();
}

// The list

function makeElement(picture) {
  const element = document.createElement("li");
  element.className = "picture";
  const name = Object.assign(document.createElement("button"), { className: "name", type: "button", textContent: picture.name, title: picture.name });
  name.addEventListener("click", () => choose(picture));
  const state = Object.assign(document.createElement("div"), { className: "state" });
  const bar = Object.assign(document.createElement("progress"), { max: 1 });
  bar.setAttribute("aria-label", `Progress of ${picture.name}`);
  const row = Object.assign(document.createElement("div"), { className: "row" });
  const stop = Object.assign(document.createElement("button"), { type: "button", textContent: "Cancel" });
  stop.setAttribute("aria-label", `Cancel ${picture.name}`);
  stop.addEventListener("click", () => cancel(picture));
  const link = Object.assign(document.createElement("a"), { className: "button", textContent: "Download" });
  link.setAttribute("aria-label", `Download the restored ${picture.name}`);
  link.addEventListener("click", (event) => {
    if (!event.isTrusted) return; // by `download`
    event.preventDefault();
    download(picture);
  });
  const drop = Object.assign(document.createElement("button"), { type: "button", textContent: "Remove" });
  drop.setAttribute("aria-label", `Remove ${picture.name}`);
  drop.addEventListener("click", () => remove(picture));
  row.append(stop, link, drop);
  element.append(name, state, bar, row);
  Object.assign(picture, { parts: { state, bar, stop, link } });
  drawElement(picture);
  return element;
}

function drawElement(picture) {
  const { state, bar, stop, link } = picture.parts ?? {};
  if (!state) return;
  const isBusy = ["uploading", "queued", "running"].includes(picture.state);
  const percent = `${Math.floor(picture.progress * 100)} %`;
  const texts = {
    uploading: picture.progress < 1 ? `sending, ${percent}` : "reading",
    ready: "not restored",
    queued: picture.before ? `waits for ${picture.before} others` : "waits",
    running: `restoring, ${percent}`,
    done: "restored",
    cancelled: "cancelled",
    failed: picture.error ?? "failed",
  };
  state.textContent = texts[picture.state];
  state.classList.toggle("bad", picture.state === "failed");
  bar.hidden = stop.hidden = !isBusy;
  bar.value = picture.progress;
  link.hidden = !picture.result;
  if (picture.result) Object.assign(link, { href: picture.result.download, download: picture.result.name });
}

// A preview of the middle of what is visible

let previewTimer;
let previewAbort;

function preview() {
  clearTimeout(previewTimer);
  previewAbort?.abort();
  previewTimer = setTimeout(async () => {
    const picture = current;
    const model = chosenModel();
    if (!picture?.size || picture.result || ["queued", "running"].includes(picture.state) || !model || model.takes_raw_only) return;
    previewAbort = new AbortController();
    const box = viewer.visibleBox(PREVIEW_PX);
    const query = options(picture);
    query.set("crop", box.join(","));
    query.set("format", "png");
    query.set("bit_depth", "8");
    try {
      tell("Previewing a part…");
      const response = await request(`/v1/restore?${query}`, { method: "POST", signal: previewAbort.signal });
      const bitmap = await createImageBitmap(await response.blob());
      if (picture !== current || picture.result) return;
      viewer.preview(bitmap, box, bitmap.width / box[2]);
      tell("The frame shows a preview; Restore computes the whole picture.");
    } catch (error) {
      if (error.name !== "AbortError") tell(error);
    }
  }, PREVIEW_AFTER_MS);
}

// Start

find("choose").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
find("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  if (current) restore(current);
});
find("restore-all").addEventListener("click", () => {
  for (const picture of pictures) if (picture.size && !["queued", "running"].includes(picture.state)) restore(picture);
});
find("download-all").addEventListener("click", async () => {
  for (const picture of pictures) if (picture.result) await download(picture);
});
for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
}
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  add(event.dataTransfer.files);
});
addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) add(event.clipboardData.files);
});

async function start() {
  try {
    models = await getJson("/v1/models");
    find("model").replaceChildren(
      ...models.map((model) => Object.assign(document.createElement("option"), { value: model.name, textContent: `${purposeOf(model)} (${model.name})` })),
    );
    showPurpose();
    tell("");
  } catch (error) {
    tell(error instanceof Problem ? error : new Problem(0, "", "The server does not answer."));
  }
}

start();
