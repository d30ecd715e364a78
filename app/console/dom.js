// Elements, made without markup: what people have named is text and never HTML.

const SVG = "http://www.w3.org/2000/svg"

/** el("p.note", { title: "…", onclick }, "text", child): an element with its classes, properties and children. */
export function el(selector, properties = {}, ...children) {
  return made(document.createElement(selector.split(".")[0] || "div"), selector, properties, children)
}

/** The same for a drawing. */
export function svg(selector, attributes = {}, ...children) {
  return made(document.createElementNS(SVG, selector.split(".")[0]), selector, attributes, children)
}

function made(node, selector, properties, children) {
  const classes = selector.split(".").slice(1)
  if (classes.length) node.classList.add(...classes)
  for (const [name, value] of Object.entries(properties)) set(node, name, value)
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false))
  return node
}

function set(node, name, value) {
  if (value === null || value === undefined) return
  if (name.startsWith("on")) node.addEventListener(name.slice(2), value)
  else if (name in node && !(node instanceof SVGElement) && !READ_ONLY.has(name)) node[name] = value
  else if (value !== false) node.setAttribute(name, value === true ? "" : value)
}

const READ_ONLY = new Set(["list"])

/** Other children. Who had the focus on one of the old keeps it on the new one of the same id, or else goes to the heading. */
export function replace(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null
  parent.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false))
  if (focused && !focused.isConnected) {
    const same = focused.id ? document.getElementById(focused.id) : null
    const next = same ?? parent.querySelector("h1") ?? document.querySelector("main h1")
    next?.focus({ preventScroll: true })
  }
  return parent
}

/** For screen readers: what has happened, in a sentence. */
export function speak(sentence) {
  document.getElementById("spoken").textContent = sentence
}

/** A short note that goes away; a fault stays until it is closed. */
export function toast(sentence, { fault = false, action = null } = {}) {
  const note = el("div.toast" + (fault ? ".fault" : ""), { role: fault ? "alert" : "status" }, el("p", {}, sentence))
  const close = () => note.remove()
  if (action) note.append(el("button.quiet", { type: "button", onclick: () => (close(), action.run()) }, action.label))
  note.append(el("button.close", { type: "button", onclick: close, "aria-label": "Close" }, "×"))
  document.getElementById("toasts").append(note)
  if (!fault) setTimeout(close, 8000)
}

export const percent = (share) => (share > 0.995 ? ">99 %" : share < 0.005 ? "<1 %" : `${Math.round(100 * share)} %`)
export const figure = (number) => (number === null ? "–" : number.toFixed(2))
export const plural = (count, one, many = one + "s") => `${count.toLocaleString("en")} ${count === 1 ? one : many}`
