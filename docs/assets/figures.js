// The gate of one unit with K = 2: turn h and see when the unit opens, and which way its weight moves.
function gate(box) {
  const colours = { t: "#2a9d7c", h: "#3f8fbf", e: "#d1495b" };
  box.innerHTML = `
    <svg viewBox="-110 -110 220 220" role="img" aria-label="The vectors t, h and e of one unit in the plane">
      <path class="open" fill="${colours.t}" opacity="0.15"/>
      <circle r="80" fill="none" stroke="currentColor" opacity="0.3"/>
      ${["t", "h", "e"].map((n) => `<g class="${n}"><line class="arrow" stroke="${colours[n]}"/><text fill="${colours[n]}" text-anchor="middle">${n}</text></g>`).join("")}
    </svg>
    ${["h", "e"].map((n) => `<label>${n} <input type="range" min="0" max="359" value="${n == "h" ? 20 : 150}" aria-label="direction of ${n}"></label>`).join("")}
    <output></output>`;
  const [h, e] = box.querySelectorAll("input"), t = [1, 1];
  const arrow = (name, [x, y], size) => {
    const line = box.querySelector(`.${name} line`), text = box.querySelector(`.${name} text`);
    line.setAttribute("x2", size * x); line.setAttribute("y2", -size * y);
    text.setAttribute("x", (size + 14) * x); text.setAttribute("y", -(size + 14) * y + 5);
  };
  const unit = (degrees) => [Math.cos(degrees * Math.PI / 180), Math.sin(degrees * Math.PI / 180)];
  const show = () => {
    const hv = unit(h.value), ev = unit(e.value), dot = (a, b) => a[0] * b[0] + a[1] * b[1];
    const isOpen = dot(t, hv) >= 0, product = isOpen ? dot(ev, hv) : 0;
    box.querySelector(".open").setAttribute("d", "M -78 -78 L 78 78 A 110 110 0 0 0 -78 -78 Z");
    arrow("t", unit(45), 80); arrow("h", hv, 80); arrow("e", ev, 60);
    box.querySelector(".h").style.opacity = isOpen ? 1 : 0.35;
    box.querySelector("output").textContent =
      `t . h = ${dot(t, hv).toFixed(2)}: the gate is ${isOpen ? "open, a = h" : "closed, a = 0"}. ` +
      `A weight on a moves by -(e . a) = ${(-product).toFixed(2)} of a step.`;
  };
  h.oninput = e.oninput = show;
  show();
}
document.querySelectorAll("[data-figure=gate]").forEach(gate);
