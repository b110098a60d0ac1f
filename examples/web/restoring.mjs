// Restore a picture in tiles with a model that `pellucid export MODEL --out MODEL.onnx` wrote.
//
// For models that take pictures as they are: gray ones, which restore color plane by plane, and RGB ones. Of each
// tile, `halo` pixels more are read on every side, starting on multiples of `multiple`, and at the true border
// nothing is made up. So the result does not depend on the tiles.
//
// A picture is { height, width, channels, samples }: opaque, 8-bit RGBA, row by row, as a canvas has it; channels is 1
// where the three of every pixel are equal and shall stay so, else 3.

/** A model to restore with. ort: onnxruntime-web. bytes: the file, a Uint8Array. */
export async function open(ort, bytes) {
  const facts = factsIn(bytes);
  return { ort, facts, session: await ort.InferenceSession.create(bytes) };
}

/** A restored picture, `scale` times as large. onTile(done, all) hears of every tile. */
export async function restore(model, picture, { tilePx = 256, onTile = () => {} } = {}) {
  const { scale } = model.facts;
  checkOpaque(picture);
  const restored = blank(picture.height * scale, picture.width * scale, picture.channels);
  const rows = spans(picture.height, tilePx, model.facts);
  const cols = spans(picture.width, tilePx, model.facts);
  let done = 0;
  for (const row of rows) {
    for (const col of cols) {
      const degraded = toInput(model, picture, row, col);
      const { restored: output } = await model.session.run({ degraded });
      paste(restored, output, row, col, scale);
      output.dispose();
      onTile(++done, rows.length * cols.length);
    }
  }
  return restored;
}

function checkOpaque({ samples }) {
  for (let at = 3; at < samples.length; at += 4)
    if (samples[at] !== 255) throw new Error("this example restores opaque pictures; pellucid itself handles the others");
}

function blank(height, width, channels) {
  return { height, width, channels, samples: new Uint8ClampedArray(height * width * 4).fill(255) };
}

/** One side of all tiles: [start, stop) is kept of [readStart, readStop). */
function spans(size, tilePx, { halo, multiple }) {
  const all = [];
  for (let start = 0; start < size; start += tilePx) {
    const stop = Math.min(size, start + tilePx);
    const readStart = Math.floor(Math.max(0, start - halo) / multiple) * multiple;
    const readStop = Math.min(size, Math.ceil((stop + halo) / multiple) * multiple);
    all.push({ start, stop, readStart, readStop });
  }
  return all;
}

/** (N, C, H, W) of what is read for a tile, black 0, white 1. A gray model gets color as three pictures. */
function toInput({ ort, facts }, { width, channels, samples }, rows, cols) {
  const [height, across] = [rows, cols].map((span) => span.readStop - span.readStart);
  const shape = [facts.num_planes === 1 ? channels : 1, facts.num_planes, height, across];
  const values = new Float32Array(shape[0] * shape[1] * height * across);
  let at = 0;
  for (let plane = 0; plane < shape[0] * shape[1]; plane++)
    for (let row = rows.readStart; row < rows.readStop; row++)
      for (let col = cols.readStart; col < cols.readStop; col++)
        values[at++] = samples[(row * width + col) * 4 + plane] / 255;
  return new ort.Tensor("float32", values, shape);
}

/** The part of a tile's result that is kept. Of a gray picture's three equal planes, the mean comes back. */
function paste(restored, { dims, data }, rows, cols, scale) {
  const [count, planes, height, width] = dims;
  const together = (count * planes) / restored.channels;
  for (let row = rows.start * scale; row < rows.stop * scale; row++)
    for (let col = cols.start * scale; col < cols.stop * scale; col++)
      for (let channel = 0; channel < 3; channel++) {
        const first = restored.channels === 1 ? 0 : channel;
        const [y, x] = [row - rows.readStart * scale, col - cols.readStart * scale];
        let sum = 0;
        for (let i = 0; i < together; i++) sum += data[((first * together + i) * height + y) * width + x];
        const value = Math.min(Math.max(sum / together, 0), 1);
        restored.samples[(row * restored.width + col) * 4 + channel] = Math.floor(value * 255 + 0.5);
      }
}

// What the model says about itself

/** scale, multiple, halo, num_planes and the words of the file. Throws where it is none of pellucid's. */
export function factsIn(bytes) {
  const texts = metadataIn(bytes);
  if (!texts.recipe) throw new Error("this file says nothing about itself; `pellucid export` writes files that do");
  if (!/^(gray|RGB);/.test(texts.input))
    throw new Error(`this example restores gray and RGB pictures; the model takes ${texts.input}`);
  if (texts.shape !== "null") throw new Error(`this model takes ${texts.shape} only; export it without --shape`);
  const counts = { scale: 1, multiple: 1, halo: 0, num_planes: 1 };
  for (const [key, least] of Object.entries(counts)) {
    counts[key] = Number(texts[key] || NaN);
    if (!Number.isInteger(counts[key]) || counts[key] < least || counts[key] > 4096)
      throw new Error(`the model says '${key}' is '${texts[key]}'; export it anew`);
  }
  return { ...texts, ...counts };
}

const FIXED_BYTES = { 1: 8, 5: 4 }; // kinds of fields of a fixed length
const DAMAGED = "this file is no ONNX model, or only the beginning of one";
const METADATA_PROPS = 14; // of onnx.ModelProto; each a message of key (1) and value (2)

/** `metadata_props` of an ONNX file, which onnxruntime-web does not tell: of those named pellucid.KEY, KEY -> text. */
function metadataIn(bytes) {
  const text = new TextDecoder();
  const found = {};
  for (const [number, content] of fieldsOf(bytes)) {
    if (number !== METADATA_PROPS) continue;
    const entry = Object.fromEntries(fieldsOf(content));
    const [key, value] = [1, 2].map((part) => text.decode(entry[part]));
    if (key.startsWith("pellucid.")) found[key.slice("pellucid.".length)] = value;
  }
  return found;
}

/** [number, content] of each field of a message of Protocol Buffers that holds bytes. */
function* fieldsOf(bytes) {
  const reader = { bytes, at: 0 };
  while (reader.at < bytes.length) {
    const tag = varint(reader);
    const kind = tag % 8;
    if (kind === 2) {
      const length = varint(reader);
      if (reader.at + length > bytes.length) throw new Error(DAMAGED);
      yield [Math.floor(tag / 8), bytes.subarray(reader.at, reader.at + length)];
      reader.at += length;
    } else if (kind === 0) {
      varint(reader);
    } else if (kind in FIXED_BYTES) {
      reader.at += FIXED_BYTES[kind];
    } else {
      throw new Error(DAMAGED);
    }
  }
}

function varint(reader) {
  let value = 0;
  for (let factor = 1; ; factor *= 128) {
    if (reader.at >= reader.bytes.length || factor > 2 ** 63) throw new Error(DAMAGED);
    const byte = reader.bytes[reader.at++];
    value += (byte % 128) * factor;
    if (byte < 128) return value;
  }
}
