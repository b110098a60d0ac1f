// Restore a picture in tiles with a model that `pellucid export MODEL --out MODEL.onnx` wrote.
//
// For gray and RGB models; a gray model restores each color plane by itself. For each tile, `halo` more pixels are read
// on every side, starting on multiples of `multiple`. At the border of the picture, nothing is padded. So the result
// does not depend on the size of the tiles.
//
// A picture is { height, width, channels, samples }: opaque 8-bit RGBA, row by row, like the ImageData of a canvas.
// channels is 1 if red, green and blue of every pixel are equal and must stay equal, otherwise 3.

/** Load a model. ort: onnxruntime-web. bytes: the file, a Uint8Array. Throws if the model cannot be used. */
export async function open(ort, bytes) {
  const metadata = readMetadata(bytes);
  return { ort, metadata, session: await ort.InferenceSession.create(bytes) };
}

/** The restored picture, `scale` times as large. onTile(done, all) is called after each tile. */
export async function restore(model, picture, { tilePx = 256, onTile = () => {} } = {}) {
  const { scale } = model.metadata;
  checkOpaque(picture);
  const restored = blank(picture.height * scale, picture.width * scale, picture.channels);
  const rows = spans(picture.height, tilePx, model.metadata);
  const cols = spans(picture.width, tilePx, model.metadata);
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
    if (samples[at] !== 255) throw new Error("this example restores only opaque pictures; pellucid itself restores others too");
}

function blank(height, width, channels) {
  return { height, width, channels, samples: new Uint8ClampedArray(height * width * 4).fill(255) };
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

/** The input of a tile, (N, C, H, W), black is 0, white is 1. A gray model gets color planes as N = 3 pictures. */
function toInput({ ort, metadata }, { width, channels, samples }, rows, cols) {
  const [height, across] = [rows, cols].map((span) => span.readStop - span.readStart);
  const shape = [metadata.num_planes === 1 ? channels : 1, metadata.num_planes, height, across];
  const values = new Float32Array(shape[0] * shape[1] * height * across);
  let at = 0;
  for (let plane = 0; plane < shape[0] * shape[1]; plane++)
    for (let row = rows.readStart; row < rows.readStop; row++)
      for (let col = cols.readStart; col < cols.readStop; col++)
        values[at++] = samples[(row * width + col) * 4 + plane] / 255;
  return new ort.Tensor("float32", values, shape);
}

/** Copy the kept part of a tile's output. The three outputs of an RGB model for a gray picture are averaged. */
function paste(restored, { dims, data }, rows, cols, scale) {
  const [count, planes, height, width] = dims;
  const numAveraged = (count * planes) / restored.channels;
  for (let row = rows.start * scale; row < rows.stop * scale; row++)
    for (let col = cols.start * scale; col < cols.stop * scale; col++)
      for (let channel = 0; channel < 3; channel++) {
        const first = restored.channels === 1 ? 0 : channel;
        const [y, x] = [row - rows.readStart * scale, col - cols.readStart * scale];
        let sum = 0;
        for (let i = 0; i < numAveraged; i++) sum += data[((first * numAveraged + i) * height + y) * width + x];
        const value = Math.min(Math.max(sum / numAveraged, 0), 1);
        restored.samples[(row * restored.width + col) * 4 + channel] = Math.floor(value * 255 + 0.5);
      }
}

// Metadata of the model

/** scale, multiple, halo and num_planes as numbers, all else as texts. Throws if the file is not from pellucid. */
export function readMetadata(bytes) {
  const texts = readEntries(bytes);
  if (!texts.recipe) throw new Error("this file has no pellucid metadata; use a file from `pellucid export`");
  if (!/^(gray|RGB);/.test(texts.input))
    throw new Error(`this example restores gray and RGB pictures; the model takes ${texts.input}`);
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
