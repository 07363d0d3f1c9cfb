// The surface from above, or from the side if it has one variable, and the ways on it.

// Where a point is on the ground's canvas.
function placed(surface, width, height) {
  const [[x0, x1], [y0, y1]] = surface.flat ? surface.ranges : [surface.ranges[0], surface.tall];
  return (x, y) => [((x - x0) / (x1 - x0)) * width, ((y1 - y) / (y1 - y0)) * height];
}

// Draws a scene: a surface, walkers on it that are at a step of so many, and perhaps one that is pointed at.
const drawGround = (canvas, scene) => paintGround(fitted(canvas), scene);

function paintGround({ context, width, height, ratio }, scene) {
  const { surface } = scene;
  const place = placed(surface, width, height);
  if (surface.flat) context.drawImage(mapOf(surface, width, height, ratio), 0, 0, width, height);
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
  const { walkers, pointed } = scene;
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

// The map of a surface, drawn anew if the canvas or the colours have changed.
function mapOf(surface, width, height, ratio) {
  const wanted = `${Math.round(width * ratio)} ${Math.round(height * ratio)} ${colour("page")}`;
  if (surface.mapKey !== wanted) Object.assign(surface, { map: mapped(surface, width, height, ratio), mapKey: wanted });
  return surface.map;
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

function drawWay(context, { surface, steps, step, pointed }, walker, place, width, height) {
  const faint = pointed && pointed !== walker;
  const size = surface.variables.length;
  const at = (t) => place(walker.points[t * size], surface.flat ? walker.points[t * size + 1] : walker.losses[t]);
  let last = step;
  while (last > 0 && !at(last).every(Number.isFinite)) last--;
  const tail = Math.max(0, last - Math.max(12, Math.round(steps / 12)));
  context.strokeStyle = colour(walker.colour);
  context.lineJoin = "round";
  context.setLineDash(walker.dash);
  for (const [from, to, opacity] of [[0, tail, 0.45], [tail, last, 1]]) {
    context.globalAlpha = faint ? 0.15 : opacity;
    context.lineWidth = walker === pointed ? 3 : 2;
    const on = begun(context);
    for (let t = from; t <= to; t++) {
      const [x, y] = at(t);
      on(Math.max(-1e4, Math.min(1e4, x)), Math.max(-1e4, Math.min(1e4, y)));
    }
    context.stroke();
  }
  context.setLineDash([]);
  context.globalAlpha = faint ? 0.25 : 1;
  const [x, y] = at(last);
  const inside = x >= 0 && x <= width && y >= 0 && y <= height && last === step;
  const edge = inside ? colour("page") : colour(walker.colour);
  const fill = inside ? colour(walker.colour) : colour("page");
  marker(context, walker.shape, Math.max(7, Math.min(width - 7, x)), Math.max(7, Math.min(height - 7, y)), fill, edge);
  context.globalAlpha = 1;
}
