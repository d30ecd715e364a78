// The threshold of a class on a slider, with its effect on stored examples: its own by the look of the others, and those of
// other classes, which should stay out.

import { api, crop } from "./api.js"
import { el, figure, plural, replace, svg } from "./dom.js"
import { exampleImage } from "./parts.js"

const LOW = -0.2 // what is less alike stands at the left end
const OTHERS = 48 // classes that are compared, an example of each: a few seconds of the service's time
const BATCH = 16
const SHOWN = 6

/**
 * `moved` is told each position of the slider, `set` what a person decides: a number, or null for the computed threshold.
 * `examples` are those of the class.
 */
export function thresholdPanel({ name, threshold, examples, moved, set }) {
  const slider = el("input", { type: "range", id: "threshold", min: LOW, max: 1, step: 0.01, value: threshold })
  const shown = el("output", { htmlFor: "threshold" })
  const drawing = el("div.scale")
  const ownEffect = el("p.effect", { role: "status" })
  const othersEffect = el("div.effect", { role: "status" })
  const own = examples.filter((example) => example.similarity !== null)
  const save = el("button.primary", { type: "button", onclick: () => set(Number(slider.value)) }, "Set threshold")
  const compare = el("button", { type: "button", onclick: lookAtOthers }, "Compare with other classes")
  let others = null

  function move() {
    const value = Number(slider.value)
    shown.textContent = figure(value)
    slider.setAttribute("aria-valuetext", figure(value))
    save.disabled = figure(value) === figure(threshold)
    ownEffect.textContent = ownSentence(own, value)
    replace(drawing, scale(own, others ?? [], { value, now: threshold }))
    if (others) replace(othersEffect, ...othersSentence(others, value))
    moved(value)
  }

  async function lookAtOthers() {
    compare.disabled = true
    try {
      others = await similaritiesOfOthers(name, (done, all) => replace(othersEffect, el("p.hint", {}, `Compared ${done} of ${all} …`)))
      compare.hidden = true
      move()
    } catch (problem) {
      compare.disabled = false
      replace(othersEffect, el("p.hint", {}, problem.message))
    }
  }

  slider.addEventListener("input", move)
  move()
  return el("section.panel", {},
    el("h2", {}, "Threshold"),
    el("div.slider-head", {}, el("label", { htmlFor: "threshold" }, "Accept from similarity"), shown),
    el("div", {}, slider, drawing),
    ownEffect, othersEffect, el("div.row", {}, compare),
    el("p.hint", {}, "Higher: fewer wrong matches, more unknowns. What is proved by its print is accepted in any case."),
    el("div.row", {}, save, el("button", { type: "button", onclick: () => set(null) }, "Use the computed one")))
}

/** Of one example each of other classes, spread over their names: how alike it is to this class. */
async function similaritiesOfOthers(name, progress) {
  const { classes } = await api.classes(null, 500)
  const there = classes.filter((one) => one.class !== name && one.examples > 0)
  const every = Math.max(1, Math.ceil(there.length / OTHERS))
  const chosen = there.filter((_, at) => at % every === 0)
  const compared = []
  for (let at = 0; at < chosen.length; at += BATCH) {
    progress(at, chosen.length)
    const batch = await Promise.all(chosen.slice(at, at + BATCH).map((one) => firstExample(one.class)))
    const { results } = await api.classifyBatch(batch.map((one) => ({ file: one.picture })), name)
    results.forEach(({ candidates }, number) => candidates?.length && compared.push({ ...batch[number], similarity: candidates[0].similarity }))
  }
  return compared
}

async function firstExample(className) {
  const { examples: [first] } = await api.examples(className, null, 1)
  return { class: className, id: first.id, picture: (await crop(className, first.id)).blob }
}

function ownSentence(own, threshold) {
  if (own.length === 0) return "It has one example, which has no other to be compared with."
  const accepted = own.filter((example) => example.similarity >= threshold).length
  return `${accepted} of ${own.length} stored examples would be accepted by the look of the others.`
}

function othersSentence(others, threshold) {
  if (others.length === 0) return [el("p", {}, "There is no other class to compare it with.")]
  const taken = others.filter((one) => one.similarity >= threshold).sort((one, other) => other.similarity - one.similarity)
  return [
    el("p", {}, `${taken.length} of ${plural(others.length, "example")} of other classes would be taken for it.`),
    el("div.taken", {}, taken.slice(0, SHOWN).map((one) => exampleImage(one.class, one.id, `Of ${one.class}`))),
  ]
}

/** Own examples above the line, others below it, and where the threshold cuts it: the one on the slider, and the one that holds. */
function scale(own, others, { value, now }) {
  const x = (similarity) => Math.min(98.8, Math.max(1.2, (100 * (similarity - LOW)) / (1 - LOW)))
  const side = (similarity) => (similarity >= value ? "in" : "out")
  return svg("svg", { viewBox: "0 0 100 10", "aria-hidden": "true" },
    svg("line", { x1: 0, x2: 100, y1: 5, y2: 5 }),
    svg("line.now", { x1: x(now), x2: x(now), y1: 2, y2: 8 }),
    own.map(({ similarity }) => svg("circle", { class: side(similarity), cx: x(similarity), cy: 3, r: 1.2 })),
    others.map(({ similarity }) => svg("circle", { class: `other ${side(similarity)}`, cx: x(similarity), cy: 7, r: 1.2 })),
    svg("line.cut", { x1: x(value), x2: x(value), y1: 0, y2: 10 }))
}
