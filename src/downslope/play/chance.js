// Noise, the same as NumPy's for the same seed: its `default_rng(seed).standard_normal()`, which is PCG64 (O'Neill, "PCG: a
// family of simple fast space-efficient statistically good algorithms for random number generation", 2014) and a ziggurat
// of 256 layers (Marsaglia & Tsang, "The ziggurat method for generating random variables", 2000).

const MASK64 = (1n << 64n) - 1n;
const MASK128 = (1n << 128n) - 1n;
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n;

// The words that a seed is spread to, by NumPy's SeedSequence.
function spread(seed, count) {
  const finish = (value) => (value ^ (value >>> 16)) >>> 0;
  let by = 0x43b0d7e5;
  const hashed = (value) => {
    const mixed = value ^ by;
    by = Math.imul(by, 0x931e8875);
    return finish(Math.imul(mixed, by));
  };
  const pool = Array.from({ length: 4 }, (_, k) => hashed(k ? 0 : seed));
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) {
      if (from !== to) pool[to] = finish(Math.imul(0xca01f9dd, pool[to]) - Math.imul(0x4973f715, hashed(pool[from])));
    }
  }
  by = 0x8b51f9dd;
  return Array.from({ length: count }, (_, k) => {
    const mixed = pool[k % 4] ^ by;
    by = Math.imul(by, 0x58f38ded);
    return finish(Math.imul(mixed, by));
  });
}

// The layers: how wide each is, which part of it is below the bell everywhere, and how high the bell is at its edge.
const EDGE = 3.6541528853610088;
const LAYERS = (() => {
  const bell = (x) => Math.exp(-0.5 * x * x);
  const area = 0.004928673233974655;
  const [wide, sure, high] = [new Float64Array(256), new Float64Array(256), new Float64Array(256)];
  let x = EDGE;
  sure[0] = ((EDGE * bell(EDGE)) / area) * 2 ** 52;
  wide[0] = area / bell(EDGE) / 2 ** 52;
  high[0] = 1;
  for (let k = 255; k > 0; k--) {
    const inner = k > 1 ? Math.sqrt(-2 * Math.log(area / x + bell(x))) : 0;
    wide[k] = x / 2 ** 52;
    high[k] = bell(x);
    sure[k] = (inner / x) * 2 ** 52;
    x = inner;
  }
  return { bell, wide, sure, high };
})();

// A function that draws one normal number after the other.
function normals(seed) {
  const words = spread(seed, 8).map(BigInt);
  const whole = (k) => (words[k + 1] << 96n) | (words[k] << 64n) | (words[k + 3] << 32n) | words[k + 2];
  const step = ((whole(4) << 1n) | 1n) & MASK128;
  let state = (((step + whole(0)) & MASK128) * MULTIPLIER + step) & MASK128;
  const bits = () => {
    state = (state * MULTIPLIER + step) & MASK128;
    const high = state >> 64n;
    const [mixed, turn] = [(high ^ state) & MASK64, high >> 58n];
    return ((mixed >> turn) | (mixed << (64n - turn))) & MASK64;
  };
  const part = () => Number(bits() >> 11n) / 2 ** 53;
  const { bell, wide, sure, high } = LAYERS;
  return () => {
    for (;;) {
      const drawn = bits();
      const layer = Number(drawn & 0xffn);
      const size = Number((drawn >> 9n) & 0xfffffffffffffn);
      const x = size * wide[layer] * (drawn & 0x100n ? -1 : 1);
      if (size < sure[layer]) return x;
      if (layer) {
        if ((high[layer - 1] - high[layer]) * part() + high[layer] < bell(x)) return x;
        continue;
      }
      for (;;) {
        const beyond = -Math.log1p(-part()) / EDGE;
        const height = -Math.log1p(-part());
        if (height + height > beyond * beyond) return (drawn >> 17n) & 1n ? -(EDGE + beyond) : EDGE + beyond;
      }
    }
  };
}

// What is added to the slopes of so many steps: of single precision, as Python adds it. What was drawn is kept, of as many
// seeds as two clouds have.
const drawnBefore = new Map();
function gustsOf(seed, deviation, count) {
  const kept = drawnBefore.get(seed) ?? { draw: normals(seed), values: [] };
  drawnBefore.set(seed, kept);
  if (drawnBefore.size > 2 * REPEATS) drawnBefore.delete(drawnBefore.keys().next().value);
  while (kept.values.length < count) kept.values.push(kept.draw());
  return Float64Array.from({ length: count }, (_, k) => Math.fround(deviation * kept.values[k]));
}
