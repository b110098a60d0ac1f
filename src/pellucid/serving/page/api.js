// The HTTP API: every request carries the token, if one is needed, and errors are Problem objects.

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

/** A response, or an exception: a Problem, or an AbortError. */
export async function request(path, options = {}) {
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
  for (let attempt = 0; attempt < 20; attempt++) {
    try {
      const response = await request(`/v1/jobs/${id}/events`, { signal });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        text += value;
        const events = text.split("\n\n");
        text = events.pop();
        for (const event of events) {
          const line = event.split("\n").find((part) => part.startsWith("data: "));
          if (!line) continue;
          const job = JSON.parse(line.slice(6));
          yield job;
          if (["done", "failed", "cancelled"].includes(job.state)) return;
        }
      }
    } catch (error) {
      if (error.name === "AbortError" || (error.status && error.status !== 429 && error.status < 500)) throw error;
    }
    await new Promise((wake) => setTimeout(wake, 1000)); // the service restarts, or the connection was lost
  }
  throw new Problem(0, "", "The server does not answer.");
}
