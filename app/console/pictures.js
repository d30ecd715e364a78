// Pictures: the field that takes them, how they are drawn on, and boxes that a person draws.

import { el, svg } from "./dom.js"

const BY_TOUCH = matchMedia("(pointer: coarse)")

let fields = 0

/** Takes pictures by drop, by paste, from files and from a phone's camera, where nothing can be dropped: `touchTitle` is for that. */
export function pictureField({ title, touchTitle, hint, take }) {
  const id = `pictures-${++fields}`
  const given = (event) => {
    const files = [...event.target.files]
    event.target.value = ""
    if (files.length) take(files)
  }
  const files = el("input.visually-hidden", { type: "file", id, accept: "image/*", multiple: true, onchange: given })
  const camera = el("input.visually-hidden", { type: "file", id: `${id}-camera`, accept: "image/*", capture: "environment", onchange: given })
  return el("div.drop", {},
    svg("svg.drop-icon", { viewBox: "0 0 48 48", "aria-hidden": "true" },
      svg("rect", { x: 6, y: 10, width: 36, height: 28, rx: 5 }),
      svg("circle", { cx: 17, cy: 20, r: 3.5 }),
      svg("path", { d: "M8 34l10-9 7 6 6-5 9 8" })),
    el("p.drop-title", {}, BY_TOUCH.matches ? touchTitle : title),
    el("p.hint", {}, hint),
    el("div.row.centre", {},
      files, el("label.button.primary", { htmlFor: id }, "Choose pictures"),
      camera, el("label.button.camera", { htmlFor: `${id}-camera` }, "Take a photo")))
}

/** A picture file, loaded: its address, and its size as it stands upright. Without a size where the browser cannot show it. */
export async function loaded(file) {
  const url = URL.createObjectURL(file)
  const image = new Image()
  image.src = url
  try {
    await image.decode()
    return { file, url, image, width: image.naturalWidth, height: image.naturalHeight }
  } catch {
    return { file, url, image: null, width: 0, height: 0 }
  }
}

/** The picture with outlines on it, in its own pixels: [{ corners, kind, label }]. */
export function outlined(picture, outlines, { alt }) {
  if (!picture.image) return el("div.unshown", {}, el("p", {}, `This browser cannot show ${picture.file.name}. It is sent all the same.`))
  const unit = Math.max(picture.width, picture.height) / 100
  return fitted(picture, el("figure.outlined", {},
    el("img", { src: picture.url, alt, width: picture.width, height: picture.height }),
    svg("svg", { viewBox: `0 0 ${picture.width} ${picture.height}`, "aria-hidden": "true" },
      outlines.map(({ corners, kind, label }) => drawn(corners, kind, label, unit, picture)))))
}

function fitted(picture, frame) {
  frame.style.setProperty("--ratio", String(picture.width / picture.height))
  return frame
}

function drawn(corners, kind, label, unit, picture) {
  const group = svg(`g.outline.${kind}`, {}, svg("polygon", { points: corners.map(([x, y]) => `${x},${y}`).join(" ") }))
  if (!label) return group
  const size = 3.2 * unit
  const [left, right] = [Math.min, Math.max].map((most) => clamp(most(...corners.map(([x]) => x)), 0, picture.width))
  const text = shortened(label, Math.floor((right - left) / (0.58 * size)) - 1)
  const width = (text.length * 0.58 + 1) * size
  const x = clamp(left, 0, picture.width - width)
  const y = Math.max(0, Math.min(...corners.map(([, at]) => at)) - 1.5 * size)
  group.append(
    svg("rect", { x, y, width, height: 1.5 * size, rx: 0.3 * size }),
    svg("text", { x: x + 0.5 * size, y: y + 1.08 * size, "font-size": size }, text))
  return group
}

/** As much of "1 Some name" as stands over its own outline; the number at least, by which the list has the whole name. */
function shortened(label, letters) {
  if (label.length <= letters) return label
  return letters < 7 ? label.split(" ")[0] : `${label.slice(0, letters - 1).trimEnd()}…`
}

export const wholeOf = ({ width, height }) => ({ x: 0, y: 0, width, height })

export const cornersOf = ({ x, y, width, height }) => [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]

/** The upright box around a quad, as far as it lies in the picture. */
export function hullOf(quad, { width, height }) {
  const [left, top] = [0, 1].map((axis) => Math.max(0, Math.min(...quad.map((corner) => corner[axis]))))
  const [right, bottom] = [width, height].map((most, axis) => Math.min(most, Math.max(...quad.map((corner) => corner[axis]))))
  return { x: left, y: top, width: Math.max(1, right - left), height: Math.max(1, bottom - top) }
}

/** A cut-out of a picture, for beside the example that decided. */
export function cutout(picture, { x, y, width, height }, alt) {
  const side = 160
  const scale = side / Math.max(width, height)
  const canvas = el("canvas.thumb", { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)), role: "img", "aria-label": alt })
  if (picture.image) canvas.getContext("2d").drawImage(picture.image, x, y, width, height, 0, 0, canvas.width, canvas.height)
  return canvas
}

/**
 * A picture on which a box can be drawn: with the pointer, or by keyboard, where arrows move it and Shift and arrows size it.
 * `changed` is told each new box in pixels of the upright picture; null is the whole picture.
 */
export function boxEditor(picture, box, changed) {
  if (!picture.image) return el("div.unshown", {}, el("p", {}, `This browser cannot show ${picture.file.name}. It is sent all the same.`))
  const { width, height } = picture
  const rectangle = svg("rect.box", {})
  const shade = svg("path.shade", { "fill-rule": "evenodd" })
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, shade, rectangle)
  const editor = fitted(picture, el("div.editor", { id: "box-editor", tabIndex: 0, role: "application", "aria-label": "Box in the picture. Arrow keys move it, Shift and arrow keys size it, Delete removes it.", "aria-roledescription": "box editor" },
    el("img", { src: picture.url, alt: picture.file.name, width, height, draggable: false }), drawing))
  let current = box

  const place = (next) => {
    current = next
    rectangle.toggleAttribute("hidden", !next)
    shade.toggleAttribute("hidden", !next)
    if (next) {
      for (const [name, value] of Object.entries(next)) rectangle.setAttribute(name, value)
      const { x, y, width: w, height: h } = next
      shade.setAttribute("d", `M0 0H${width}V${height}H0ZM${x} ${y}V${y + h}H${x + w}V${y}Z`)
    }
  }
  const change = (next) => (place(next), changed(next))
  const at = (event) => {
    const frame = drawing.getBoundingClientRect()
    return [
      Math.round(clamp(((event.clientX - frame.left) / frame.width) * width, 0, width)),
      Math.round(clamp(((event.clientY - frame.top) / frame.height) * height, 0, height)),
    ]
  }
  let start = null
  editor.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return
    start = at(event)
    editor.setPointerCapture(event.pointerId)
  })
  editor.addEventListener("pointermove", (event) => start && place(between(start, at(event))))
  editor.addEventListener("pointerup", (event) => {
    if (!start) return
    const next = between(start, at(event))
    start = null
    change(next.width < 8 || next.height < 8 ? null : next) // a tap: the whole picture again
  })
  editor.addEventListener("pointercancel", () => ((start = null), place(current)))
  editor.addEventListener("keydown", (event) => {
    const step = Math.max(1, Math.round(Math.max(width, height) / 50))
    const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key]
    if (event.key === "Delete" || event.key === "Backspace") change(null)
    else if (move) change(nudged(current ?? centred(width, height), move, event.shiftKey, width, height))
    else return
    event.preventDefault()
  })
  place(box)
  return editor
}

function between([ax, ay], [bx, by]) {
  return { x: Math.min(ax, bx), y: Math.min(ay, by), width: Math.abs(ax - bx), height: Math.abs(ay - by) }
}

function centred(width, height) {
  return { x: Math.round(width / 4), y: Math.round(height / 4), width: Math.round(width / 2), height: Math.round(height / 2) }
}

function nudged(box, [dx, dy], sizes, width, height) {
  if (sizes) return { ...box, width: clamp(box.width + dx, 8, width - box.x), height: clamp(box.height + dy, 8, height - box.y) }
  return { ...box, x: clamp(box.x + dx, 0, width - box.width), y: clamp(box.y + dy, 0, height - box.height) }
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high)
