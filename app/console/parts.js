// Parts that several views share.

import { api, crop } from "./api.js"
import { el, replace, svg } from "./dom.js"

/** The stored picture of an example, fetched when it comes into sight. */
export function exampleImage(className, id, alt) {
  const frame = el("span.crop", {}, el("span.visually-hidden", {}, alt))
  const load = async () => {
    try {
      replace(frame, el("img", { src: (await crop(className, id)).url, alt }))
    } catch {
      frame.classList.add("missing")
    }
  }
  whenSeen(frame, load)
  return frame
}

const observer = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue
    observer.unobserve(target)
    target.whenSeen()
  }
}, { rootMargin: "200px" })

export function whenSeen(node, work) {
  node.whenSeen = work
  observer.observe(node)
}

export const classLink = (name) => el("a.class-link", { href: `#class=${encodeURIComponent(name)}`, title: name }, name)

/** A field for a class name that offers those there are. */
export function nameField({ id, label, placeholder }) {
  const names = el("datalist", { id: `${id}-names` })
  const input = el("input", { id, type: "text", maxLength: 200, autocomplete: "off", placeholder, list: names.id, spellcheck: false })
  input.addEventListener("focus", async () => {
    const page = await api.classes(null, 500).catch(() => ({ classes: [] }))
    replace(names, page.classes.map((one) => el("option", { value: one.class })))
  })
  return { input, node: el("div.field", {}, el("label", { htmlFor: id }, label), input, names) }
}

/** A bar from 0 to 1, with its figure beside it for those who do not see it. */
export function meter(share, kind) {
  const bar = svg("svg.meter", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect.track", { width: 100, height: 6, rx: 3 }),
    svg("rect", { class: `fill ${kind}`, width: Math.max(2, 100 * share), height: 6, rx: 3 }))
  return bar
}

export const OUTCOMES = { match: "Match", doubtful: "Doubtful", unknown: "Unknown" }
export const badge = (outcome) => el(`span.badge.${outcome}`, {}, OUTCOMES[outcome])

export function busyPanel(sentence) {
  return el("div.panel.busy", { "aria-busy": "true" }, el("span.spinner", { "aria-hidden": "true" }), el("p", {}, sentence))
}

export function faultPanel(problem, again) {
  return el("div.panel.fault", { role: "alert" },
    el("h2", {}, "That did not work"),
    el("p", {}, problem.message),
    again && el("div.row", {}, el("button", { type: "button", onclick: again }, "Try again")))
}
