// Restore a PNG in Node, with a model that `pellucid export MODEL --out MODEL.onnx` wrote.
//
//     node restore.mjs MODEL.onnx INPUT.png OUTPUT.png [TILE_PX]

import { readFileSync, writeFileSync } from "node:fs";

import * as ort from "onnxruntime-web";
import { PNG } from "pngjs";

import { open, restore } from "./restoring.mjs";

async function main([model, input, output, tile = "256"]) {
  const { height, width, data } = PNG.sync.read(readFileSync(input));
  const picture = { height, width, samples: data };
  const restored = await restore(await open(ort, readFileSync(model)), picture, { tilePx: Number(tile) });
  const png = new PNG({ width: restored.width, height: restored.height });
  png.data.set(restored.samples);
  writeFileSync(output, PNG.sync.write(png));
}

const words = process.argv.slice(2);
if (words.length < 3 || words.length > 4 || !(Number(words[3] ?? 1) >= 1)) {
  console.error("usage: node restore.mjs MODEL.onnx INPUT.png OUTPUT.png [TILE_PX]");
  process.exit(2);
}
main(words).catch((error) => {
  console.error(`restore: ${error.message}`);
  process.exit(1);
});
