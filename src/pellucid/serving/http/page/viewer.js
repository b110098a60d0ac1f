// Before and after under a divider. Only the visible part of a picture is fetched, at the size of the screen, so a
// picture of any size can be shown; from 100 % on, every pixel of the file is one or more whole pixels of the screen.

import { request } from "/page/api.js";

const FETCH_AFTER_MS = 120;
const MAX_ZOOM = 16;

/** One side: a source of views, and the part of it that was fetched last. */
class Layer {
  constructor(canvas, onError) {
    this.canvas = canvas;
    this.onError = onError;
    this.clear();
  }

  clear() {
    this.abort?.abort();
    this.url = null;
    this.size = null;
    this.scale = 1; // pixels of the whole viewer per pixel of this layer
    this.image = null; // { bitmap, box }
    this.patch = null; // a preview: { bitmap, box }
  }

  /** Fetch the visible box (in pixels of this layer) for a screen of this size. */
  async fetch(box, longest) {
    const [left, top, width, height] = box;
    const wanted = `${left},${top},${width},${height}:${longest}`;
    if (!this.url || width < 1 || height < 1 || this.wanted === wanted) return false;
    this.wanted = wanted;
    this.abort?.abort();
    this.abort = new AbortController();
    const url = this.url;
    try {
      const query = `box=${left},${top},${width},${height}&longest_px=${longest}`;
      const response = await request(`${url}?${query}`, { signal: this.abort.signal });
      const bitmap = await createImageBitmap(await response.blob());
      if (url !== this.url) return false;
      this.image = { bitmap, box };
      return true;
    } catch (error) {
      if (error.name !== "AbortError") this.onError(error);
      this.wanted = null;
      return false;
    }
  }

  draw(view) {
    const { canvas } = this;
    canvas.width = view.width;
    canvas.height = view.height;
    canvas.style.width = `${view.width / devicePixelRatio}px`; // exactly one pixel of the screen for each of its own
    canvas.style.height = `${view.height / devicePixelRatio}px`;
    const context = canvas.getContext("2d");
    for (const part of [this.image, this.patch]) {
      if (!part) continue;
      const zoom = view.zoom * this.scale;
      context.imageSmoothingEnabled = zoom < 1 || (this.scale !== 1 && zoom < 3);
      context.imageSmoothingQuality = "high";
      const [left, top, width, height] = part.box;
      const x = view.width / 2 + (left * this.scale - view.x) * view.zoom;
      const y = view.height / 2 + (top * this.scale - view.y) * view.zoom;
      const place = [Math.round(x), Math.round(y), Math.round(width * zoom), Math.round(height * zoom)];
      context.drawImage(part.bitmap, ...place);
      if (part === this.patch) {
        context.strokeStyle = "#7fd6c2";
        context.lineWidth = 2;
        context.strokeRect(...place);
      }
    }
  }
}

export class Viewer {
  constructor(onError) {
    const find = (id) => document.getElementById(id);
    this.stage = find("stage");
    this.before = new Layer(find("before"), onError);
    this.after = new Layer(find("after"), onError);
    this.split = find("split");
    this.view = { x: 0, y: 0, zoom: 1, width: 1, height: 1 };
    this.fits = true;
    this.pointers = new Map();
    new ResizeObserver(() => this.#resize()).observe(this.stage);
    this.split.addEventListener("input", () => this.#drawDivider());
    find("fit").addEventListener("click", () => this.fit());
    find("real").addEventListener("click", () => this.zoomTo(1));
    find("in").addEventListener("click", () => this.zoomTo(this.view.zoom * 2));
    find("out").addEventListener("click", () => this.zoomTo(this.view.zoom / 2));
    this.stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.#press(event));
    this.stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      this.stage.addEventListener(kind, (event) => this.pointers.delete(event.pointerId));
    }
    this.stage.addEventListener("dblclick", () => (this.view.zoom === 1 ? this.fit() : this.zoomTo(1)));
    this.stage.addEventListener("keydown", (event) => this.#key(event));
    this.#resize();
    this.#drawDivider();
  }

  /** Show a picture: the size of `before`, where its views are, and where those of its result are, if there is one. */
  show(before, after) {
    const isSame = this.before.url === before?.url;
    const hadScale = this.before.scale;
    if (!isSame) this.before.clear();
    this.after.clear();
    if (before) {
      Object.assign(this.before, { url: before.url, size: before.size, scale: after?.scale ?? 1 });
      if (after) Object.assign(this.after, { url: after.url, size: after.size, scale: 1 });
    } else this.before.url = null;
    const ratio = this.before.scale / hadScale;
    this.view.x *= ratio;
    this.view.y *= ratio;
    this.view.zoom /= ratio;
    if (!isSame || this.fits) this.fit();
    else this.redraw();
    document.getElementById("hint").hidden = Boolean(before);
    this.#drawDivider();
  }

  /** Show a restored part over the picture, with the factor that it is enlarged by. */
  preview(bitmap, box, scale) {
    this.after.patch = { bitmap, box };
    this.after.scale = 1 / scale;
    this.after.patch.box = box.map((value) => value * scale);
    this.redraw();
    this.#drawDivider();
  }

  get size() {
    if (!this.before.size) return null;
    return this.before.size.map((side) => side * this.before.scale);
  }

  /** The visible part in pixels of the picture, at most this large, around the middle. */
  visibleBox(longest) {
    const [width, height] = this.before.size;
    const scale = this.before.scale;
    const side = (screen, whole) => Math.max(1, Math.min(longest, whole, Math.ceil(screen / this.view.zoom / scale)));
    const w = side(this.view.width, width);
    const h = side(this.view.height, height);
    const place = (center, part, whole) => Math.max(0, Math.min(whole - part, Math.round(center / scale - part / 2)));
    return [place(this.view.x, w, width), place(this.view.y, h, height), w, h];
  }

  fit() {
    const size = this.size;
    if (!size) return this.redraw();
    const [width, height] = size;
    this.fits = true;
    Object.assign(this.view, { x: width / 2, y: height / 2 });
    this.view.zoom = Math.min(1, this.view.width / width, this.view.height / height);
    this.redraw();
  }

  /** Zoom, keeping a point of the screen (in its pixels, from the middle) where it is. */
  zoomTo(zoom, x = 0, y = 0) {
    if (!this.size) return;
    const before = this.view.zoom;
    const smallest = Math.min(1, this.view.width / this.size[0], this.view.height / this.size[1]) / 2;
    const wanted = Math.max(smallest, Math.min(MAX_ZOOM, zoom));
    this.view.zoom = wanted > 1 ? Math.max(1, Math.round(wanted)) : wanted;
    this.view.x += x / before - x / this.view.zoom;
    this.view.y += y / before - y / this.view.zoom;
    this.fits = false;
    this.redraw();
  }

  pan(x, y) {
    this.view.x -= x / this.view.zoom;
    this.view.y -= y / this.view.zoom;
    this.fits = false;
    this.redraw();
  }

  redraw() {
    const size = this.size;
    if (size) {
      for (const [axis, whole] of [["x", size[0]], ["y", size[1]]]) this.view[axis] = Math.max(0, Math.min(whole, this.view[axis]));
    }
    this.before.draw(this.view);
    this.after.draw(this.view);
    document.getElementById("zoom").textContent = size ? `${Math.round(this.view.zoom * 100)} %` : "";
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#fetch(), FETCH_AFTER_MS);
  }

  async #fetch() {
    const fetched = [this.before, this.after].map((layer) => {
      if (!layer.url || !layer.size) return false;
      const zoom = this.view.zoom * layer.scale;
      const [width, height] = layer.size;
      const left = Math.max(0, Math.floor(this.view.x / layer.scale - this.view.width / 2 / zoom));
      const top = Math.max(0, Math.floor(this.view.y / layer.scale - this.view.height / 2 / zoom));
      const right = Math.min(width, Math.ceil(this.view.x / layer.scale + this.view.width / 2 / zoom));
      const bottom = Math.min(height, Math.ceil(this.view.y / layer.scale + this.view.height / 2 / zoom));
      const part = Math.max(right - left, bottom - top);
      const longest = Math.max(16, Math.min(4096, zoom >= 1 ? part : Math.ceil(part * zoom)));
      return layer.fetch([left, top, right - left, bottom - top], longest);
    });
    for (const one of fetched) {
      if (await one) {
        this.before.draw(this.view);
        this.after.draw(this.view);
        this.stage.dispatchEvent(new Event("drawn"));
      }
    }
  }

  #resize() {
    this.view.width = Math.max(1, Math.floor(this.stage.clientWidth * devicePixelRatio));
    this.view.height = Math.max(1, Math.floor(this.stage.clientHeight * devicePixelRatio));
    if (this.fits) this.fit();
    else this.redraw();
  }

  #drawDivider() {
    const share = this.split.value / 1000;
    const hasAfter = Boolean(this.after.url || this.after.patch);
    this.after.canvas.style.clipPath = `inset(0 0 0 ${share * 100}%)`;
    const divider = document.getElementById("divider");
    divider.hidden = !hasAfter;
    divider.style.left = `${share * 100}%`;
    for (const id of ["label-before", "label-after"]) document.getElementById(id).hidden = !hasAfter;
    this.split.disabled = !hasAfter;
    this.split.setAttribute("aria-valuetext", `${Math.round(share * 100)} % before`);
  }

  #fromMiddle(event) {
    const { left, top } = this.stage.getBoundingClientRect();
    return [
      (event.clientX - left) * devicePixelRatio - this.view.width / 2,
      (event.clientY - top) * devicePixelRatio - this.view.height / 2,
    ];
  }

  #wheel(event) {
    event.preventDefault();
    const factor = this.view.zoom >= 1 ? 2 : 1.25;
    this.zoomTo(event.deltaY < 0 ? this.view.zoom * factor : this.view.zoom / factor, ...this.#fromMiddle(event));
  }

  #press(event) {
    this.stage.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.dragsDivider = false;
    if (!this.split.disabled && this.pointers.size === 1) {
      const { left, width } = this.stage.getBoundingClientRect();
      this.dragsDivider = Math.abs(event.clientX - left - (this.split.value / 1000) * width) < 14;
    }
  }

  #move(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    if (this.dragsDivider) {
      const { left, width } = this.stage.getBoundingClientRect();
      this.split.value = Math.round(((event.clientX - left) / width) * 1000);
      this.#drawDivider();
    } else if (this.pointers.size === 1) {
      this.pan((event.clientX - last.clientX) * devicePixelRatio, (event.clientY - last.clientY) * devicePixelRatio);
    } else {
      const [other] = [...this.pointers.values()].filter((one) => one.pointerId !== event.pointerId);
      const distance = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      this.pinched = (this.pinched ?? 1) * (distance(event) / Math.max(1, distance(last)));
      if (this.pinched > 1.3 || this.pinched < 0.75) {
        this.zoomTo(this.view.zoom * (this.pinched > 1 ? 1.5 : 1 / 1.5), ...this.#fromMiddle(event));
        this.pinched = 1;
      }
    }
    this.pointers.set(event.pointerId, event);
  }

  #key(event) {
    const step = 60 * devicePixelRatio;
    const actions = {
      ArrowLeft: () => this.pan(step, 0),
      ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step),
      "+": () => this.zoomTo(this.view.zoom * 2),
      "=": () => this.zoomTo(this.view.zoom * 2),
      "-": () => this.zoomTo(this.view.zoom / 2),
      0: () => this.fit(),
      1: () => this.zoomTo(1),
    };
    if (event.ctrlKey || event.metaKey || !actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }
}
