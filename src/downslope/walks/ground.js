// The surface from above, or from the side if it has one variable, and the ways on it.

// Where a point is on the ground's canvas.
function placed(surface, width, height) {
  const [[x0, x1], [y0, y1]] = surface.flat ? surface.ranges : [surface.ranges[0], surface.tall];
  return (x, y) => [((x - x0) / (x1 - x0)) * width, ((y1 - y) / (y1 - y0)) * height];
}

// Draws a scene: a surface, walkers on it that are at a step of so many, and perhaps one that is pointed at.
function drawGround(canvas, scene) {
  const room = fitted(canvas);
  room.context.drawImage(landOf(scene.surface, room), 0, 0, room.width, room.height);
  return paintWays(room, scene);
}

// What does not move, as a picture, which is drawn anew if the canvas or the colours have changed.
function landOf(surface, { width, height, ratio }) {
  const size = [width, height].map((length) => Math.max(1, Math.round(length * ratio)));
  const wanted = [...size, colour("page")].join();
  if (surface.landKey !== wanted) {
    const land = new OffscreenCanvas(...size);
    const context = land.getContext("2d");
    context.scale(ratio, ratio);
    paintLand({ context, width, height, ratio }, surface);
    Object.assign(surface, { land, landKey: wanted });
  }
  return surface.land;
}

function paintLand({ context, width, height, ratio }, surface) {
  const place = placed(surface, width, height);
  if (surface.flat) context.drawImage(mapped(surface, width, height, ratio), 0, 0, width, height);
  else drawHill(context, surface, place, width, height);
  drawScale(context, surface, place, width, height);
  context.strokeStyle = colour("ink");
  context.lineWidth = 1.6;
  for (const minimum of surface.minima) {
    const [x, y] = place(minimum[0], surface.flat ? minimum[1] : surface.lowest);
    context.beginPath();
    context.moveTo(x - 5, y);
    context.lineTo(x + 5, y);
    context.moveTo(x, y - 5);
    context.lineTo(x, y + 5);
    context.stroke();
  }
}

function paintWays({ context, width, height }, scene) {
  const { surface, walkers, pointed } = scene;
  const place = placed(surface, width, height);
  const shown = walkers.filter((walker) => walker.shown);
  for (const walker of [...shown.filter((other) => other !== pointed), ...shown.filter((other) => other === pointed)]) {
    drawWay(context, scene, walker, place, width, height);
  }
  return { context, width, height, place };
}

// Puts the handle of the start where it is.
function placeHandle(handle, surface, start, { width, height, place }) {
  const [x, y] = place(start[0], surface.flat ? start[1] : surface.height(start, new Float64Array(2))[0]);
  handle.style.transform = `translate(${Math.min(width, Math.max(0, x))}px, ${Math.min(height, Math.max(0, y))}px)`;
}

function drawHill(context, surface, place, width, height) {
  const [x0, x1] = surface.ranges[0];
  const out = new Float64Array(2);
  context.beginPath();
  for (let i = 0; i <= 400; i++) {
    const x = x0 + ((x1 - x0) * i) / 400;
    context.lineTo(...place(x, surface.height([x], out)[0]));
  }
  context.strokeStyle = colour("muted");
  context.lineWidth = 2;
  context.stroke();
  context.lineTo(width, height);
  context.lineTo(0, height);
  context.fillStyle = colour("low");
  context.fill();
}

function drawScale(context, surface, place, width, height) {
  const [xs, ys] = surface.flat ? surface.ranges : [surface.ranges[0], surface.tall];
  context.fillStyle = colour("muted");
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "center";
  for (const x of ticks(...xs, Math.max(3, width / 110))) {
    const [at] = place(x, ys[0]);
    if (at > 14 && at < width - 14) context.fillText(short(x), at, height - 5);
  }
  context.textAlign = "left";
  for (const y of ticks(...ys, Math.max(2, height / 90))) {
    const at = place(xs[0], y)[1];
    if (at > 12 && at < height - 20) context.fillText(short(y), 5, at + 4);
  }
}

// The line through the places of a way from one step to another, as it is seen: x and y of its points, and NaN before a part
// that begins anew. A point in the pixel of the one before is left out, and so is a part between two pixels that there was
// before: a rule that ends by jumping to and fro would be thousands of lines in one place, of which none can be seen, and
// which take a browser that draws without a graphics card a tenth of a second.
function lineOf(x, y, from, to) {
  const line = [];
  const pixels = new Map();
  const drawn = new Set();
  let [oldX, oldY, oldPixel, old, whole] = [NaN, NaN, NaN, NaN, false];
  for (let t = from; t <= to; t++) {
    const newX = Math.max(-1e4, Math.min(1e4, x(t)));
    const newY = Math.max(-1e4, Math.min(1e4, y(t)));
    const pixel = Math.round(newX) * 32768 + Math.round(newY);
    if (pixel === oldPixel) continue;
    let here = Number.isNaN(pixel) ? NaN : pixels.get(pixel);
    if (here === undefined) pixels.set(pixel, (here = pixels.size));
    const part = here < old ? here * 65536 + old : old * 65536 + here; // NaN at the first point, and beside one that is nowhere
    if (Number.isNaN(part) || drawn.has(part)) whole = false;
    else {
      drawn.add(part);
      if (!whole) line.push(NaN, NaN, oldX, oldY);
      line.push(newX, newY);
      whole = true;
    }
    [oldX, oldY, oldPixel, old] = [newX, newY, pixel, here];
  }
  return line;
}

// What is seen of a way at a step: the last place up to it that is somewhere, and the lines to where its tail begins and from
// there.
function seenOf({ once, points, losses }, { surface, steps, step }, place) {
  const [[left, top], [right, bottom]] = [place(0, 0), place(1, 1)];
  const key = [left, top, right, bottom, step].join();
  if (once.seenFor !== key) {
    const size = surface.variables.length;
    const x = (t) => left + (right - left) * points[t * size];
    const y = (t) => top + (bottom - top) * (surface.flat ? points[t * size + 1] : losses[t]);
    let last = step;
    while (last > 0 && !Number.isFinite(x(last) + y(last))) last--;
    const tail = Math.max(0, last - Math.max(12, Math.round(steps / 12)));
    Object.assign(once, { seenFor: key, seen: { last, end: [x(last), y(last)], lines: [lineOf(x, y, 0, tail), lineOf(x, y, tail, last)] } });
  }
  return once.seen;
}

function drawWay(context, scene, walker, place, width, height) {
  const { step, pointed } = scene;
  const faint = pointed && pointed !== walker;
  const { last, end, lines } = seenOf(walker, scene, place);
  context.strokeStyle = colour(walker.colour);
  context.lineJoin = "round";
  context.setLineDash(walker.dash);
  context.globalAlpha = faint ? 0.15 : 1;
  for (const [k, line] of lines.entries()) {
    context.lineWidth = (k ? 2.4 : 1.3) + (walker === pointed); // the way of long ago is thin, not pale: it has to be seen too
    context.beginPath();
    for (let i = 0; i < line.length; i += 2) {
      if (!Number.isNaN(line[i])) context.lineTo(line[i], line[i + 1]);
      else context.moveTo(line[(i += 2)], line[i + 1]);
    }
    context.stroke();
  }
  context.setLineDash([]);
  context.globalAlpha = faint ? 0.25 : 1;
  const [x, y] = end;
  const inside = x >= 0 && x <= width && y >= 0 && y <= height && last === step;
  const edge = inside ? colour("page") : colour(walker.colour);
  const fill = inside ? colour(walker.colour) : colour("page");
  marker(context, walker.shape, Math.max(7, Math.min(width - 7, x)), Math.max(7, Math.min(height - 7, y)), fill, edge);
  context.globalAlpha = 1;
}
