// SPDX-License-Identifier: Apache-2.0
// Moves the light: a ball to drag or to steer by arrow keys, and shift-drag on the head.

const STEP = 0.08;

export function steerLight(ball, canvas, lights, onChange) {
  const set = (right, up) => {
    lights.setDirection(right, up);
    const [x, y] = lights.direction;
    ball.style.setProperty("--x", `${50 + 50 * x}%`);
    ball.style.setProperty("--y", `${50 - 50 * y}%`);
    onChange();
  };
  const dragOver = (target, place, wanted) => {
    let held = false;
    const start = (event) => {
      if (event.button !== 0 || !wanted(event)) return;
      event.stopImmediatePropagation(); // the camera stays
      event.preventDefault();
      target.setPointerCapture(event.pointerId);
      held = true;
      set(...place(event));
    };
    target.addEventListener("pointerdown", start, { capture: true });
    target.addEventListener("pointermove", (event) => held && set(...place(event)));
    for (const end of ["pointerup", "pointercancel"]) target.addEventListener(end, () => (held = false));
  };
  const within = (target, share) => (event) => {
    const box = target.getBoundingClientRect();
    const radius = share * Math.min(box.width, box.height);
    const middle = [box.left + 0.5 * box.width, box.top + 0.5 * box.height];
    return [(event.clientX - middle[0]) / radius, (middle[1] - event.clientY) / radius];
  };
  dragOver(ball, within(ball, 0.5), () => true);
  dragOver(canvas, within(canvas, 0.45), (event) => event.shiftKey);
  ball.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    set(lights.direction[0] + move[0], lights.direction[1] + move[1]);
  });
  set(...lights.direction);
}
