// A surface of the reader's own: a formula of x, or of x and y, and the part of it that is looked at.

const EXAMPLE_SURFACE = "x**2/4 + y**2 + 2*sin(2*x)*cos(2*y)";
const HALVES = [5, 20, 100, 500, 0.5]; // how far to look to each side, the usual one first
const typedSurfaces = new Map();

// The surface of a text, on these ends of its axes, or on those that suit it. Throws a GrammarError where the text is no
// formula, and says so where there is nothing to walk on.
function surfaceTyped(text, ends) {
  const key = `${text}|${ends}`;
  if (!typedSurfaces.has(key)) {
    if (typedSurfaces.size > 50) typedSurfaces.clear();
    const tree = READER.parse(text, ["x", "y"]);
    const mentions = ({ op, args, value }) => (op === "input" ? value === "y" : args.some(mentions));
    const variables = mentions(tree) ? ["x", "y"] : ["x"];
    const seen = { tree, variables, value: READER.loss(tree, variables), slope: READER.slope(tree, variables) };
    typedSurfaces.set(key, madeSurface(text, seen, ends ?? fittingEnds(seen)));
  }
  return typedSurfaces.get(key);
}

const endsOn = ({ variables }, half) => variables.flatMap(() => [-half, half]);
const heightAt = (slope, point, out) => (point.length > 1 ? slope(point[0], point[1], out) : slope(point[0], out));

// Heights on a grid with so many points along each axis, the first axis in the outer loop; infinite where they are not finite.
function gridOf({ variables, value }, axes) {
  const heights = axes[0].flatMap((x) => (variables.length > 1 ? axes[1].map((y) => value(x, y)) : [value(x)]));
  return heights.map((height) => (Number.isFinite(height) ? height : Infinity));
}

const evenly = (low, high, count) => Array.from({ length: count }, (_, k) => low + ((high - low) * k) / (count - 1));
const lowestOf = (heights) => heights.reduce((best, height, k) => (height < heights[best] ? k : best), 0);
const placesIn = (variables, k, count) => (variables.length > 1 ? [Math.floor(k / count), k % count] : [k]);

// How far to look: as far as it takes to see the lowest place inside, else as usual, or wherever there is anything.
function fittingEnds(seen) {
  const looks = HALVES.map((half) => {
    const heights = gridOf(seen, seen.variables.map(() => evenly(-half, half, 41)));
    const k = lowestOf(heights);
    const known = heights.filter(Number.isFinite);
    return { half, any: known.some((height) => height !== known[0]), inside: placesIn(seen.variables, k, 41).every((at) => at > 0 && at < 40) };
  });
  const found = looks.find(({ any, inside }) => any && inside) ?? looks.find(({ any }) => any) ?? looks[0];
  return endsOn(seen, found.half);
}

function madeSurface(name, seen, ends) {
  const { tree, variables, slope } = seen;
  const ranges = variables.map((_, i) => [ends[2 * i], ends[2 * i + 1]]);
  const out = new Float64Array(3);
  const parts = ranges.map(([low, high]) => evenly(0.05, 0.95, 19).map((part) => low + part * (high - low)));
  const places = parts[0].flatMap((x) => (parts[1] ? parts[1].map((y) => [x, y]) : [[x]]));
  const begins = [parts.map((part, i) => part[i ? 16 : 1]), ...places]; // at the side, else anywhere
  const start = begins.find((place) => heightAt(slope, place, out).subarray(0, 1 + variables.length).every(Number.isFinite));
  if (!start) throw new Left(say("formula.nowhere"));
  const samples = gridOf(seen, ranges.map(([low, high]) => evenly(low, high, variables.length > 1 ? 41 : 401))).filter(Number.isFinite);
  const [low, high] = [Math.min(...samples), Math.max(...samples)];
  if (low === high) throw new Left(say("formula.level"));
  const digits = ranges.map(([low, high]) => Math.max(0, 3 - Math.floor(Math.log10(high - low))));
  const [curvature, size] = [READER.curvature(tree, variables), high - low];
  return {
    name, variables, ranges, parameters: {}, source: "",
    start: start.map((value, i) => Number(value.toFixed(digits[i]))),
    tall: [low - 0.1 * size, high + 0.05 * size],
    ...lowestPlace(seen, ranges, heightAt(slope, start, out)[0]),
    height: () => (point, filled) => heightAt(slope, point, filled),
    second: () => (point, filled) => heightAt(curvature, point, filled),
  };
}

// The lowest place, by looking around the lowest point of a grid on finer and finer ones, as Python does; there is none where
// that point is on the edge.
function lowestPlace(seen, ranges, first) {
  let middle = ranges.map(([low, high]) => (low + high) / 2);
  let half = ranges.map(([low, high]) => (high - low) / 2);
  const heights = [];
  for (const count of [301, ...Array(14).fill(21)]) {
    const axes = middle.map((m, i) => evenly(-1, 1, count).map((part) => m + half[i] * part));
    const found = gridOf(seen, axes);
    const k = lowestOf(found);
    const places = placesIn(seen.variables, k, count);
    heights.push(found[k]);
    if (heights.length === 1 && places.some((each) => each === 0 || each === count - 1)) break;
    middle = axes.map((axis, i) => axis[places[i]]);
    half = half.map((each) => each * (3 / count));
  }
  const settled = heights.length > 1 && heights.at(-2) - heights.at(-1) <= 1e-9 * Math.abs(heights[0] - first);
  return settled ? { minima: [middle], lowest: heights.at(-1), bottomless: false } : { minima: [], lowest: heights[0], bottomless: true };
}

const isTyped = () => !has(SURFACES, state.surface);

// The ends of the axes between which a typed surface is looked at: from where to where along x, and along y.
function usualWindow({ surface }) {
  return has(SURFACES, surface) ? [] : surfaceTyped(surface).ranges.flat();
}

function readWindow(text, { surface }) {
  if (has(SURFACES, surface)) throw new Left(say("formula.window"));
  const values = text.split(",").map((part) => within(-1e6, 1e6).read(part));
  const { length } = usualWindow({ surface });
  if (values.length !== length) throw new Left(say("left.start", { count: length }));
  if (values.some((value, k) => k % 2 && !(value > values[k - 1]))) throw new Left(say("formula.ends"));
  surfaceTyped(surface, values); // throws where there is nothing
  return values;
}

MODULES.push({
  place: "own-surface",
  mount(page, element) {
    const field = make("input", { type: "text", id: "formula-text", spellcheck: false, autocapitalize: "off", autocomplete: "off", maxLength: 200 });
    const problem = make("div", { id: "formula-problem", className: "problem", role: "status" });
    field.setAttribute("aria-describedby", problem.id);
    const label = make("label", { htmlFor: field.id });
    const ends = make("div", { className: "row" });
    const inside = make("div", {}, label, field, problem, ends);
    let shown = "";

    function typed() {
      try {
        const { ranges } = surfaceTyped(field.value);
        showProblem(problem, field);
        shown = "";
        page.change({ surface: field.value, window: ranges.flat() });
      } catch (error) {
        showProblem(problem, field, error);
      }
    }

    function changed() {
      const { surface, window, lang, hide } = page.state;
      element.hidden = !isTyped() || hide.includes("surface");
      const now = JSON.stringify([surface, window, lang]);
      if (element.hidden || now === shown) return;
      shown = now;
      label.textContent = say("formula.label");
      if (field.value !== surface) {
        field.value = surface;
        showProblem(problem, field);
      }
      const input = (k, key) => {
        const made = make("input", { type: "number", step: "any", autocomplete: "off", value: window[k] });
        made.addEventListener("change", () => {
          try {
            page.change({ window: KEYS.window.read(window.map((value, i) => (i === k ? made.value : value)).join(","), page.state) });
          } catch {
            made.value = window[k];
          }
        });
        return make("label", {}, say(key, { axis: page.surface.variables[k >> 1] }), " ", made);
      };
      ends.replaceChildren(...window.map((_, k) => input(k, k % 2 ? "formula.to" : "formula.from")));
    }

    element.append(inside);
    field.addEventListener("input", typed);
    return { changed };
  },
});
