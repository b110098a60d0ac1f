// The HTTP API: every request carries the token, if one is needed, and errors are Problem objects.

const PATIENCE_MS = 60_000; // for a restart of the service

let token = sessionStorage.getItem("token") ?? "";

export class Problem extends Error {
  constructor(status, title, detail, retryAfter) {
    super(detail || title);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

export function setToken(value) {
  token = value;
  sessionStorage.setItem("token", value);
}

/** A response, or an exception: a Problem, or an AbortError. Tries again, except to delete, see `persist`. */
export function request(path, options = {}) {
  const call = () => requestOnce(path, options);
  return options.method === "DELETE" ? call() : persist(call, options.signal);
}

async function requestOnce(path, options) {
  const headers = new Headers(options.headers);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "", "The server does not answer.");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  throw new Problem(response.status, problem.title ?? response.statusText, problem.detail, response.headers.get("Retry-After"));
}

export async function getJson(path, options) {
  return (await request(path, options)).json();
}

/** Repeat a call while the queue is full and, for a minute, while the server does not answer or is not ready. */
async function persist(call, signal) {
  let end = null;
  for (let hasWaited = false; ; hasWaited = true) {
    try {
      const result = await call();
      if (hasWaited) document.dispatchEvent(new CustomEvent("waiting", { detail: "" }));
      return result;
    } catch (error) {
      if (![0, 429, 503].includes(error.status)) throw error;
      end = error.status === 429 ? null : (end ?? performance.now() + PATIENCE_MS);
      if (end !== null && performance.now() > end) throw error;
      document.dispatchEvent(new CustomEvent("waiting", { detail: `${error.message} Trying again…` }));
      await pause(1000 * (error.retryAfter || 1), signal);
    }
  }
}

async function pause(ms, signal) {
  await new Promise((wake) => setTimeout(wake, ms));
  if (signal?.aborted) throw new DOMException("cancelled", "AbortError");
}

/** Send a file with progress, which fetch cannot report. Returns what is known of the picture. */
export function upload(file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open("POST", `/v1/pictures?filename=${encodeURIComponent(file.name)}`);
    call.setRequestHeader("Content-Type", "application/octet-stream");
    if (token) call.setRequestHeader("Authorization", `Bearer ${token}`);
    call.upload.onprogress = (event) => onProgress(event.loaded / Math.max(1, event.total));
    call.onerror = () => reject(new Problem(0, "", "The connection was interrupted."));
    call.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    call.onload = () => {
      let content = {};
      try { content = JSON.parse(call.responseText); } catch { /* not from this server */ }
      if (call.status === 201) resolve(content);
      else reject(new Problem(call.status, content.title ?? call.statusText, content.detail, call.getResponseHeader("Retry-After")));
    };
    signal.addEventListener("abort", () => call.abort());
    call.send(file);
  });
}

/** The states of a job, one after the other, until it is finished. */
export async function* follow(id, signal) {
  for (;;) {
    try {
      const response = await request(`/v1/jobs/${id}/events`, { signal });
      for await (const job of readEvents(response.body)) {
        yield job;
        if (["done", "failed", "cancelled"].includes(job.state)) return;
      }
    } catch (error) {
      if (error.name === "AbortError" || error instanceof Problem) throw error;
    }
    await pause(1000, signal); // the service restarts, or the connection was lost
  }
}

async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const line = event.split("\n").find((part) => part.startsWith("data: "));
      if (line) yield JSON.parse(line.slice(6));
    }
  }
}
