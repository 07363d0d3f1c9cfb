// The map of a surface of two variables: bands of height, and the lines between them.

// The values of a surface on a grid over its ranges.
function sampled(surface, count) {
  const [[x0, x1], [y0, y1]] = surface.ranges;
  const values = new Float64Array(count * count);
  const out = new Float64Array(3);
  const at = new Float64Array(2);
  for (let j = 0; j < count; j++) {
    at[1] = y1 - ((y1 - y0) * j) / (count - 1);
    for (let i = 0; i < count; i++) {
      at[0] = x0 + ((x1 - x0) * i) / (count - 1);
      values[j * count + i] = surface.height(at, out)[0];
    }
  }
  return values;
}

const LEVELS = [0.0005, 0.002, 0.006, 0.014, 0.03, 0.055, 0.09, 0.14, 0.2, 0.27, 0.35, 0.45, 0.56, 0.68, 0.8, 0.9, 0.97];

// Heights between bands of the map: closer together near the lowest point, where the walkers end. A part of the grid will
// do, and is sorted at once.
function levels(values) {
  const known = values.filter((value, k) => k % 5 === 0 && Number.isFinite(value)).sort();
  if (!known.length) return [];
  return [...new Set(LEVELS.map((part) => known[Math.floor(part * (known.length - 1))]))].filter((level) => level > known[0]);
}

// How many of the levels every height is above.
function banded(values, edges) {
  const bands = new Uint8Array(values.length);
  for (let k = 0; k < values.length; k++) {
    let band = 0;
    while (band < edges.length && !(values[k] <= edges[band])) band++;
    bands[k] = band;
  }
  return bands;
}

// Where the height is a level: for each level the ends x, y, x, y of short lines between the points of the grid (marching
// squares).
function contours(values, bands, count, edges) {
  const lines = edges.map(() => []);
  for (let j = 0; j + 1 < count; j++) {
    for (let k = j * count; k + 1 < (j + 1) * count; k++) {
      const low = Math.min(bands[k], bands[k + 1], bands[k + count], bands[k + count + 1]);
      const high = Math.max(bands[k], bands[k + 1], bands[k + count], bands[k + count + 1]);
      if (low === high) continue;
      const [a, b, c, d] = [values[k], values[k + 1], values[k + count + 1], values[k + count]];
      if (!Number.isFinite(a + b + c + d)) continue;
      for (let band = low; band < high; band++) crossed(lines[band], k - j * count, j, a, b, c, d, edges[band]);
    }
  }
  return lines;
}

// The lines of one level through a square, whose corners have the heights a, b, c, d from its upper left one clockwise.
function crossed(lines, i, j, a, b, c, d, level) {
  const sides = [];
  if (a > level !== b > level) sides.push(i + (level - a) / (b - a), j);
  if (b > level !== c > level) sides.push(i + 1, j + (level - b) / (c - b));
  if (c > level !== d > level) sides.push(i + (level - d) / (c - d), j + 1);
  if (d > level !== a > level) sides.push(i, j + (level - a) / (d - a));
  // Of a square that is crossed twice the middle says which two corners are apart.
  if (sides.length > 4 && a > level !== (a + b + c + d) / 4 > level) sides.push(...sides.splice(0, 2));
  for (const end of sides) lines.push(end);
}

// The map on a canvas of its own, which is made once.
function mapped(surface, width, height, ratio) {
  const count = 256;
  const values = sampled(surface, count);
  const edges = levels(values);
  const bands = banded(values, edges);
  const rgb = (name) => colour(name).match(/\w\w/g).map((part) => parseInt(part, 16));
  const [low, high] = [rgb("low"), rgb("high")];
  const picture = new ImageData(count, count);
  for (let k = 0; k < values.length; k++) {
    const part = edges.length ? bands[k] / edges.length : 1;
    for (let c = 0; c < 3; c++) picture.data[4 * k + c] = low[c] + part * (high[c] - low[c]);
    picture.data[4 * k + 3] = Number.isNaN(values[k]) ? 0 : 255;
  }
  const small = new OffscreenCanvas(count, count);
  small.getContext("2d").putImageData(picture, 0, 0);
  const map = new OffscreenCanvas(Math.round(width * ratio), Math.round(height * ratio));
  const context = map.getContext("2d");
  context.drawImage(small, 0.5, 0.5, count - 1, count - 1, 0, 0, map.width, map.height);
  context.lineWidth = 0.8 * ratio;
  context.strokeStyle = colour("contour");
  const [across, down] = [map.width / (count - 1), map.height / (count - 1)];
  for (const lines of contours(values, bands, count, edges)) {
    context.beginPath();
    for (let k = 0; k < lines.length; k += 4) {
      context.moveTo(lines[k] * across, lines[k + 1] * down);
      context.lineTo(lines[k + 2] * across, lines[k + 3] * down);
    }
    context.stroke();
  }
  return map;
}
