// Restore a picture in tiles with a file from `pellucid export MODEL --out MODEL.onnx --whole --layout nhwc`.
//
// The graph takes the samples of a picture and returns those of the result. For each tile, `halo` more pixels are read
// on every side, starting on multiples of `multiple`. At the border of the picture, nothing is padded. So the result
// does not depend on the size of the tiles.
//
// A picture is { height, width, samples }: opaque 8-bit RGBA, row by row, like the ImageData of a canvas.

/** Load a model. ort: onnxruntime-web. bytes: the file, a Uint8Array. providers: of onnxruntime-web, the first that works. */
export async function open(ort, bytes, providers = ["wasm"]) {
  const metadata = readMetadata(bytes);
  return { ort, metadata, session: await ort.InferenceSession.create(bytes, { executionProviders: providers }) };
}

/** The restored picture, `scale` times as large. onTile(done, all) is called after each tile. */
export async function restore(model, picture, { tilePx = 256, onTile = () => {} } = {}) {
  const { scale, num_planes: channels } = model.metadata;
  checkSamples(picture, channels);
  const [height, width] = [picture.height * scale, picture.width * scale];
  const restored = { height, width, samples: new Uint8ClampedArray(height * width * 4).fill(255) };
  const rows = spans(picture.height, tilePx, model.metadata);
  const cols = spans(picture.width, tilePx, model.metadata);
  let done = 0;
  for (const row of rows) {
    for (const col of cols) {
      const { restored: output } = await model.session.run({ picture: toInput(model.ort, picture, channels, row, col) });
      paste(restored, output, row, col, scale);
      output.dispose();
      onTile(++done, rows.length * cols.length);
    }
  }
  return restored;
}

function checkSamples({ samples }, channels) {
  for (let at = 0; at < samples.length; at += 4) {
    if (samples[at + 3] !== 255)
      throw new Error("this example restores only opaque pictures; pellucid itself restores others too");
    if (channels === 1 && (samples[at] !== samples[at + 1] || samples[at] !== samples[at + 2]))
      throw new Error("the picture has colors, and the model was exported for gray pictures; export it with --colors rgb");
  }
}

/** Rows or columns of all tiles: [readStart, readStop) is read, [start, stop) of the result is kept. */
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

/** The samples of a tile with its halo, (1, H, W, C). */
function toInput(ort, { width, samples }, channels, rows, cols) {
  const [height, across] = [rows, cols].map((span) => span.readStop - span.readStart);
  const tile = new Uint8Array(height * across * channels);
  let at = 0;
  for (let row = rows.readStart; row < rows.readStop; row++)
    for (let col = cols.readStart; col < cols.readStop; col++)
      for (let channel = 0; channel < channels; channel++) tile[at++] = samples[(row * width + col) * 4 + channel];
  return new ort.Tensor("uint8", tile, [1, height, across, channels]);
}

/** Copy the kept part of a tile's output. */
function paste(restored, { dims, data }, rows, cols, scale) {
  const [, , across, channels] = dims;
  for (let row = rows.start * scale; row < rows.stop * scale; row++)
    for (let col = cols.start * scale; col < cols.stop * scale; col++) {
      const from = ((row - rows.readStart * scale) * across + col - cols.readStart * scale) * channels;
      const to = (row * restored.width + col) * 4;
      for (let color = 0; color < 3; color++) restored.samples[to + color] = data[from + (color % channels)];
    }
}

// Metadata of the model

/** scale, multiple, halo and num_planes as numbers, all else as texts. Throws if the file cannot be used here. */
export function readMetadata(bytes) {
  const texts = readEntries(bytes);
  if (!texts.recipe) throw new Error("this file has no pellucid metadata; use a file from `pellucid export`");
  const form = JSON.parse(texts.whole ?? "null");
  if (/mosaic/.test(texts.input)) throw new Error(`this example restores pictures; the model takes ${texts.input}`);
  if (form?.samples !== "uint8" || form?.layout !== "nhwc")
    throw new Error(`this example needs files from \`pellucid export --whole --layout nhwc --samples uint8\`; the model takes ${texts.input}`);
  if (texts.shape !== "null") throw new Error(`this model accepts only inputs of ${texts.shape}; export it without --shape`);
  const numbers = { scale: 1, multiple: 1, halo: 0, num_planes: 1 };
  for (const [key, minimum] of Object.entries(numbers)) {
    numbers[key] = Number(texts[key] || NaN);
    if (!Number.isInteger(numbers[key]) || numbers[key] < minimum || numbers[key] > 4096)
      throw new Error(`the metadata '${key}' of this model is '${texts[key]}'; export it again`);
  }
  return { ...texts, ...numbers };
}

const FIXED_BYTES = { 1: 8, 5: 4 }; // lengths of wire types with a fixed length
const DAMAGED = "this file is not an ONNX model, or it is incomplete";
const METADATA_PROPS = 14; // field of onnx.ModelProto; each is a message with a key (1) and a value (2)

/** KEY -> text for all `pellucid.KEY` in the `metadata_props` of an ONNX file; onnxruntime-web cannot read them. */
function readEntries(bytes) {
  const text = new TextDecoder();
  const found = {};
  for (const [number, content] of readFields(bytes)) {
    if (number !== METADATA_PROPS) continue;
    const entry = Object.fromEntries(readFields(content));
    const [key, value] = [1, 2].map((part) => text.decode(entry[part]));
    if (key.startsWith("pellucid.")) found[key.slice("pellucid.".length)] = value;
  }
  return found;
}

/** [number, content] of each field of a Protocol Buffers message that contains bytes. */
function* readFields(bytes) {
  const reader = { bytes, at: 0 };
  while (reader.at < bytes.length) {
    const tag = readVarint(reader);
    const wireType = tag % 8;
    if (wireType === 2) {
      const length = readVarint(reader);
      if (reader.at + length > bytes.length) throw new Error(DAMAGED);
      yield [Math.floor(tag / 8), bytes.subarray(reader.at, reader.at + length)];
      reader.at += length;
    } else if (wireType === 0) {
      readVarint(reader);
    } else if (wireType in FIXED_BYTES) {
      reader.at += FIXED_BYTES[wireType];
    } else {
      throw new Error(DAMAGED);
    }
  }
}

function readVarint(reader) {
  let value = 0;
  for (let factor = 1; ; factor *= 128) {
    if (reader.at >= reader.bytes.length || factor > 2 ** 63) throw new Error(DAMAGED);
    const byte = reader.bytes[reader.at++];
    value += (byte % 128) * factor;
    if (byte < 128) return value;
  }
}
