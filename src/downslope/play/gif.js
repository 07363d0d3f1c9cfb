// The walk as an animated GIF (GIF89a): up to 255 colours, and of every picture only what is not as it was in the one before.

const MOST_FRAMES = 60;

const APART = 40; // colours that are so far from each other in a channel are seen to be two

// The colours that are most frequent in some pictures, at most 255 of them; of a pixel the lowest byte is its red. A quarter is
// for such as are far from each other, so that no line loses its colour to the many shades of the ground.
function* paletteOf(places, pictureOf) {
  const counts = new Map();
  for (const place of places) {
    const pixels = pictureOf(place);
    yield;
    for (let k = 0, next = 0; k < pixels.length; k = next) {
      while (pixels[next] === pixels[k]) next++; // most pixels are as the one before
      counts.set(pixels[k], (counts.get(pixels[k]) ?? 0) + next - k);
    }
  }
  const frequent = [...counts].sort((a, b) => b[1] - a[1]).map(([found]) => [found, channels(found)]);
  const apart = [];
  for (const [found, here] of frequent) {
    if (apart.every(([, other]) => other.some((value, k) => Math.abs(value - here[k]) > APART))) apart.push([found, here]);
    if (apart.length === 64) break;
  }
  return [...new Set([...apart, ...frequent].map(([found]) => found))].slice(0, 255);
}

const channels = (pixel) => [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];

// For a colour, the place of the nearest one in a palette.
function nearestIn(palette) {
  const known = new Map(palette.map((each, k) => [each, k]));
  const flat = palette.flatMap(channels);
  return (wanted) => {
    const found = known.get(wanted);
    if (found !== undefined) return found;
    const [red, green, blue] = channels(wanted);
    let [nearest, least] = [0, Infinity];
    for (let k = 0; k < palette.length; k++) {
      const apart = (flat[3 * k] - red) ** 2 + (flat[3 * k + 1] - green) ** 2 + (flat[3 * k + 2] - blue) ** 2;
      if (apart < least) [nearest, least] = [k, apart];
    }
    known.set(wanted, nearest);
    return nearest;
  };
}

const PREFIXES = new Int16Array(4096 * 256); // the code of what another code stands for and one more colour

// Bytes by the method of Lempel, Ziv and Welch, in blocks as they stand in a GIF.
function* compressed(pixels) {
  const [clear, end] = [256, 257];
  const bytes = [];
  let [size, next, bits, filled] = [9, 258, 0, 0];
  const write = (code) => {
    bits |= code << filled;
    for (filled += size; filled >= 8; filled -= 8, bits >>>= 8) bytes.push(bits & 255);
  };
  PREFIXES.fill(0);
  write(clear);
  let prefix = pixels[0];
  for (let k = 1; k < pixels.length; k++) {
    if (k % 30000 === 0) yield;
    const at = (prefix << 8) | pixels[k];
    if (PREFIXES[at]) prefix = PREFIXES[at];
    else {
      write(prefix);
      if (next < 4096) {
        PREFIXES[at] = next++;
        if (next > 1 << size) size++;
      } else {
        write(clear);
        PREFIXES.fill(0);
        [size, next] = [9, 258];
      }
      prefix = pixels[k];
    }
  }
  write(prefix);
  if (next === 1 << size && size < 12) size++;
  write(end);
  if (filled) bytes.push(bits & 255);
  const blocks = [8];
  for (let k = 0; k < bytes.length; k += 255) blocks.push(Math.min(255, bytes.length - k), ...bytes.slice(k, k + 255));
  return [...blocks, 0];
}

// The part of a picture that is not as it was: where it begins, its size, and the places of its colours.
function changedPart(pixels, before, width, nearest, nothing) {
  let [left, top, right, bottom] = [width, 0, 0, 0];
  for (let k = 0; k < pixels.length; k++) {
    if (pixels[k] === before?.[k]) continue;
    const x = k % width;
    bottom = (k - x) / width;
    if (left === width) top = bottom;
    left = Math.min(left, x);
    right = Math.max(right, x);
  }
  if (left > right) left = right;
  const [w, h] = [right - left + 1, bottom - top + 1];
  const part = new Uint8Array(w * h);
  for (let k = 0; k < part.length; k++) {
    const at = (top + Math.floor(k / w)) * width + left + (k % w);
    part[k] = pixels[at] === before?.[at] ? nothing : nearest(pixels[at]);
  }
  return { place: [left, top, w, h], part };
}

// The file of so many pictures, each of them asked for by its number; the last one stays for a while. It is made in small
// parts, after each of which comes how much of it is there.
function* gifOf(pictureOf, count, width, height) {
  const palette = yield* paletteOf([0, count >> 1, count - 1], pictureOf);
  const [nearest, nothing] = [nearestIn(palette), palette.length];
  const pairs = (...values) => values.flatMap((value) => [value & 255, value >> 8]);
  const letters = (text) => [...text].map((letter) => letter.charCodeAt(0));
  const table = Array.from({ length: 256 }, (_, k) => channels(palette[k] ?? 0)).flat();
  const chunks = [[...letters("GIF89a"), ...pairs(width, height), 0xf7, 0, 0, ...table, 0x21, 0xff, 11, ...letters("NETSCAPE2.0"), 3, 1, 0, 0, 0]];
  let before = null;
  for (let k = 0; k < count; k++) {
    yield k / count;
    const pixels = pictureOf(k);
    yield k / count;
    const { place, part } = changedPart(pixels, before, width, nearest, nothing);
    chunks.push([0x21, 0xf9, 4, 5, ...pairs(k === count - 1 ? 200 : 8), nothing, 0, 0x2c, ...pairs(...place), 0], yield* compressed(part));
    before = pixels;
  }
  return new Blob([...chunks.map((chunk) => Uint8Array.from(chunk)), Uint8Array.of(0x3b)], { type: "image/gif" });
}

// What draws in the language and the colours that the page has now, whatever is switched meanwhile.
function asItLooks() {
  const kept = [words.language, new Map(colours)];
  return (draw) => {
    const before = [words.language, colours];
    [words.language, colours] = kept;
    try {
      draw();
    } finally {
      [words.language, colours] = before;
    }
  };
}

// The walk from its first step to its last, as it is now, whatever is changed while it is filmed.
function gif() {
  const [width, height, all] = pictureSize();
  const context = make("canvas", { width, height: all }).getContext("2d", { willReadFrequently: true });
  const count = Math.min(state.steps + 1, MOST_FRAMES);
  const copy = ({ points, losses, ...walker }) => ({ ...walker, points: points.slice(), losses: losses.slice(), once: {} });
  const land = new OffscreenCanvas(width, height);
  paintLand({ context: land.getContext("2d"), width, height, ratio: 1 }, surface);
  const kept = { ...scene(), walkers: walkers.map(copy), land };
  const paint = () => paintPicture({ context, width, height, ratio: 1 }, kept);
  paint(); // by which all colours are known
  const drawn = asItLooks();
  return gifOf((k) => {
    kept.step = Math.round((k * kept.steps) / (count - 1));
    drawn(paint);
    return new Uint32Array(context.getImageData(0, 0, width, all).data.buffer);
  }, count, width, all);
}

// Films in small parts, beside all else, and says on the button how far it is; pressed meanwhile, the button stops it.
let filming = null;
function film(button) {
  const mine = filming ? null : gif();
  const ended = (said) => {
    button.textContent = say("share.gif");
    find("said").textContent = say(said);
  };
  filming = mine;
  if (!mine) return ended("share.gif.stopped");
  let there = 0;
  (function go() {
    if (filming !== mine) return;
    const end = performance.now() + (document.hidden ? 500 : 10); // a page that nobody sees is rarely called
    let part = mine.next();
    while (!part.done && performance.now() < end) part = mine.next();
    if (part.done) {
      filming = null;
      saveAs("walk.gif", part.value);
      return ended("share.gif.saved");
    }
    there = part.value ?? there;
    button.textContent = say("share.gif.stop", { part: Math.floor(100 * there) });
    setTimeout(go);
  })();
}
