// Curves on a canvas.

/** Draw series [{points: [[x, y], ...], colour}], with y from 0 to `top`. */
export function chart(canvas, series, top, unit = "") {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const [left, right, above, below] = [44, 12, 8, 24];
  const last = Math.max(1, ...series.map(({ points }) => points.at(-1)?.[0] ?? 0));
  const at = (x, y) => [
    left + (x / last) * (width - left - right),
    height - below - (y / top) * (height - above - below),
  ];
  context.font = `12px ${style.fontFamily}`;
  context.fillStyle = style.color;
  context.textBaseline = "middle";
  context.textAlign = "right";
  context.strokeStyle = style.borderTopColor;
  for (const tick of [0, 0.25, 0.5, 0.75, 1].map((part) => part * top)) {
    const [x, y] = at(0, tick);
    context.fillText(`${tick}${unit}`, x - 8, y);
    line(context, [[x, y], at(last, tick)], 1);
  }
  context.textAlign = "center";
  const every = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((step) => last / step <= 6) ?? 1000;
  for (let x = 0; x <= last; x += every) context.fillText(x, at(x, 0)[0], height - 9);
  for (const { points, colour } of series) {
    context.strokeStyle = colour;
    line(context, points.map(([x, y]) => at(x, y)), 2);
  }
}

function line(context, points, width) {
  context.lineWidth = width;
  context.lineJoin = "round";
  context.beginPath();
  for (const point of points) context.lineTo(...point);
  context.stroke();
}
