// Pictures in, what they show out, and a wrong answer put right in one click.

import { api } from "./api.js"
import { el, figure, percent, plural, replace, speak, toast } from "./dom.js"
import { badge, busyPanel, classLink, exampleImage, faultPanel, meter, nameField } from "./parts.js"
import { boxEditor, cornersOf, cutout, hullOf, loaded, outlined, pictureField, wholeOf } from "./pictures.js"

const MODES = { classify: "One thing", detect: "Several things" }
const REASONS = {
  below_threshold: "It is like this class, but not as much as its threshold asks for.",
  ambiguous: "Two classes fit so well that they cannot be told apart.",
  no_classes: "Nothing has been taught yet.",
}

const SETTLED_MS = 300 // after the last key that moved a box, it is asked about

const STEPS = [
  ["Teach", "Drop one or two pictures of a brand or product, and give it a name."],
  ["Try", "Drop a photograph. It says what that shows and how sure it is, or that it does not know."],
  ["Correct", "Is an answer wrong? One click makes the picture an example of the right class."],
]

export function recogniseView() {
  const items = []
  let mode = "classify"
  let current = null
  let nothingTaught = false
  let settling = null
  const node = el("div.view")

  async function take(files) {
    const taken = await Promise.all(files.map(async (file) => ({ picture: await loaded(file), box: null, answers: {} })))
    items.unshift(...taken)
    select(taken[0])
    for (const item of taken) await ask(item)
  }

  async function ask(item) {
    const asked = mode
    if (item.answers[asked] && !item.answers[asked].problem) return
    const waiting = (item.answers[asked] = { waiting: true })
    render()
    const answer = await (asked === "classify" ? api.classify(item.picture.file, item.box) : api.detect(item.picture.file))
      .catch((problem) => ({ problem }))
    if (item.answers[asked] !== waiting) return // another box, or something taught meanwhile: this is an answer of before
    item.answers[asked] = answer
    render()
    if (item === current) speak(spoken(item.answers[asked]))
  }

  function select(item) {
    current = item
    render()
  }

  function render() {
    replace(node, items.length ? bench() : welcome())
  }

  const welcome = () => (nothingTaught ? beginning() : [
    el("h1", { tabIndex: -1 }, "What is in this picture?"),
    el("p.lead", {}, "You see what it shows, how sure that is, and which of your examples decided."),
    modes(),
    pictureField({
      title: "Drop pictures here",
      touchTitle: "A picture, or several",
      hint: "Or paste them, anywhere on this page. They are sent to this service only.",
      take,
    }),
  ])

  /** The first thing that anybody sees of it. */
  const beginning = () => [
    el("h1", { tabIndex: -1 }, "Show it once, and it knows it from then on"),
    el("p.lead", {}, "Nothing has been taught yet. Begin with something that you have at hand: a package, a label, a logo."),
    el("ol.steps", {}, STEPS.map(([title, text], number) =>
      el("li", {}, el("span.number", { "aria-hidden": "true" }, String(number + 1)), el("h2", {}, title), el("p", {}, text)))),
    el("div.row", {}, el("a.button.primary", { href: "#teach" }, "Teach the first one")),
  ]

  async function lookWhetherTaught() {
    const info = await api.info().catch(() => null) // whatever is wrong, the head of the page tells it
    const nothing = info?.classes === 0
    if (nothing === nothingTaught) return
    nothingTaught = nothing
    if (!items.length) render()
  }

  const bench = () => [
    el("div.bench-top", {}, el("h1", { tabIndex: -1 }, "What is in this picture?"), modes()),
    el("div.bench", {},
      el("div.stage", {}, stage(), strip()),
      el("div.answer", {}, panel())),
  ]

  function modes() {
    const choose = (event) => {
      mode = event.target.value
      render()
      if (current) ask(current)
    }
    return el("fieldset.segments", {},
      el("legend.visually-hidden", {}, "How many things the picture shows"),
      Object.entries(MODES).map(([value, label]) =>
        el("label", {}, el("input", { type: "radio", id: `mode-${value}`, name: "mode", value, checked: value === mode, onchange: choose }), el("span", {}, label))))
  }

  function stage() {
    if (current.drawing && mode === "classify") return [boxEditor(current.picture, current.box, askAbout), partLine()]
    const shown = outlined(current.picture, outlinesOf(current.answers[mode]), { alt: `Your picture ${current.picture.file.name}` })
    return mode === "classify" && current.picture.image ? [shown, partLine()] : shown
  }

  /** In a photograph of many things, one of them can be meant. */
  function partLine() {
    const [words, action] = current.drawing
      ? [current.box ? "Only what is in the box is asked about." : "Draw a box around what you mean.", "Ask about the whole picture"]
      : ["", "Ask about a part of it"]
    return el("p.hint.box-line", {}, words, " ", el("button.link", { type: "button", id: "part", onclick: toggleDrawing }, action))
  }

  function toggleDrawing() {
    const wasAsked = current.box
    Object.assign(current, { drawing: !current.drawing, box: null })
    if (wasAsked) return askAbout(null)
    render()
    node.querySelector(".editor")?.focus()
  }

  function askAbout(box) {
    const item = current
    item.box = box
    delete item.answers.classify
    clearTimeout(settling)
    settling = setTimeout(() => ask(item), SETTLED_MS)
  }

  function strip() {
    return el("div.strip", {},
      items.map((item, number) =>
        el("button.strip-item", {
          type: "button",
          id: `picture-${items.length - number}`,
          "aria-pressed": item === current ? "true" : "false",
          "aria-label": `${item.picture.file.name}: ${spoken(item.answers[mode])}`,
          onclick: () => (select(item), ask(item)),
        }, item.picture.image ? el("img", { src: item.picture.url, alt: "" }) : null, el(`span.dot.${kindOf(item.answers[mode])}`))),
      addButton())
  }

  function addButton() {
    const input = el("input.visually-hidden", { type: "file", id: "more", accept: "image/*", multiple: true, onchange: (event) => take([...event.target.files]) })
    return el("span", {}, input, el("label.strip-add", { htmlFor: "more", title: "More pictures" }, "+", el("span.visually-hidden", {}, "More pictures")))
  }

  function panel() {
    const answer = current.answers[mode]
    if (!answer || answer.waiting) return busyPanel("Looking …")
    if (answer.problem) return faultPanel(answer.problem, () => ask(current))
    return mode === "classify" ? answerPanel(answer) : foundPanel(answer)
  }

  function answerPanel(answer) {
    const [best, ...others] = answer.candidates
    return [
      el("section.panel", { "aria-label": "Answer" },
        badge(answer.outcome), headline(answer, best),
        answer.outcome !== "match" && el("p.hint", {}, REASONS[answer.reason] ?? "It is none of what was taught."),
        best && answer.outcome !== "unknown" && decided(best)),
      answer.candidates.length > 0 &&
        el("section.panel", {},
          el("h2", {}, answer.outcome === "match" ? "How sure, and what else it could be" : "What comes nearest"),
          el("ul.candidates", {}, [best, ...others].map((one) => candidateRow(one, answer)))),
      correction(answer.outcome === "match" ? "Is it something else?" : "What is it?"),
    ]
  }

  function headline(answer, best) {
    if (answer.outcome === "match") return el("p.decision", {}, classLink(answer.decision))
    if (answer.outcome === "doubtful") return el("p.decision", {}, "Perhaps ", classLink(best.class))
    return el("p.decision", {}, "Nothing you have taught")
  }

  /** The picture beside the example that decided, and in words why. */
  function decided(candidate) {
    const [shown] = candidate.evidence
    if (!shown) return null
    const region = shown.verified ? hullOf(shown.verified.quad, current.picture) : current.box ?? wholeOf(current.picture)
    return el("div.decided", {},
      el("figure", {}, cutout(current.picture, region, "Your picture"), el("figcaption", {}, "your picture")),
      el("span.versus", { "aria-hidden": "true" }, "≈"),
      el("figure", {}, exampleImage(candidate.class, shown.example, `Example of ${candidate.class}`), el("figcaption", {}, "the example that decided")),
      el("p.hint", {}, why(candidate, shown)))
  }

  function candidateRow(candidate, answer) {
    const kind = candidate.accepted ? "match" : "unknown"
    const [shown] = candidate.evidence
    const isDecision = answer.decision === candidate.class
    return el("li.candidate", {},
      shown ? exampleImage(candidate.class, shown.example, "") : el("span.crop.missing"),
      el("div.candidate-text", {},
        el("div.candidate-name", {}, classLink(candidate.class), el("span.figure", {}, percent(candidate.probability))),
        meter(candidate.probability, kind),
        el("p.hint", {}, groundOf(candidate, shown))),
      !isDecision && itIs(candidate.class, current.box))
  }

  /** One click: what is in the box, or the whole picture, becomes an example of this class. */
  const itIs = (name, box, label = "It’s this") =>
    el("button.small", { type: "button", onclick: () => correct(name, box), "aria-label": `It is ${name}: make this an example` }, label)

  function foundPanel(answer) {
    if (!answer.detections.length) {
      return [
        el("section.panel", {}, badge("unknown"), el("p.decision", {}, "Nothing found"),
          el("p.hint", {}, "Things are found by what is printed on them. Look for one thing instead, or teach what is here.")),
        teachHere(),
      ]
    }
    return [
      el("section.panel", {},
        el("h2", {}, `${answer.detections.length} found`),
        el("ol.found", {}, answer.detections.map(foundRow))),
      teachHere(),
    ]
  }

  function foundRow(found, number) {
    const [shown] = found.evidence
    const others = nameField({ id: `right-${number}`, label: "It is", placeholder: "the right class" })
    const likely = el("div.row")
    const right = el("form.correct", { hidden: true, onsubmit: (event) => (event.preventDefault(), correct(others.input.value, found.box)) },
      likely, others.node, el("button.primary", { type: "submit" }, "Teach"))
    const toggle = el("button.link", { type: "button", "aria-expanded": "false", onclick: () => {
      right.hidden = !right.hidden
      toggle.setAttribute("aria-expanded", String(!right.hidden))
      if (right.hidden) return
      others.input.focus()
      offer(likely, found)
    } }, "Wrong?")
    return el("li.found-row", {},
      el("span.numbered", {}, cutout(current.picture, found.box, "In your picture"), el("span.number", {}, String(number + 1))),
      shown && exampleImage(found.class, shown.example, `Example of ${found.class}`),
      el("div.candidate-text", {},
        el("div.candidate-name", {}, classLink(found.class), el("span.figure", {}, percent(found.probability))),
        meter(found.probability, found.outcome),
        found.outcome !== "match" && el("p.hint", {}, `Doubtful. ${REASONS[found.reason] ?? ""}`),
        el("div.found-foot", {}, el("p.hint", {}, groundOf(found, shown)), toggle)),
      found.outcome !== "match" && itIs(found.class, found.box), right)
  }

  /** What else the thing in the box looks like, each to be said with one click. */
  async function offer(row, found) {
    replace(row, el("span.spinner"))
    const { candidates } = await api.classify(current.picture.file, found.box).catch(() => ({ candidates: [] }))
    const others = candidates.filter((one) => one.class !== found.class).slice(0, 3)
    replace(row, others.map((one) => itIs(one.class, found.box, one.class)))
  }

  const teachHere = () =>
    el("section.panel.slim", {}, el("p", {}, "Is something missing or wrong?"),
      el("button", { type: "button", onclick: () => teachPicture(current.picture.file) }, "Draw a box and teach it"))

  function correction(title) {
    const name = nameField({ id: "right", label: "Class", placeholder: "a name, new or known" })
    return el("section.panel", {}, el("h2", {}, title),
      el("form.correct", { onsubmit: (event) => (event.preventDefault(), correct(name.input.value, current.box)) },
        name.node, el("button.primary", { type: "submit" }, "Teach")),
      el("p.hint", {}, `${current.box ? "What is in the box" : "This picture"} becomes an example of that class.`))
  }

  async function correct(name, box) {
    if (!name.trim()) return toast("Say which class it is.", { fault: true })
    const item = current
    try {
      const report = await api.enrol(name.trim(), [{ file: item.picture.file, box }])
      const [example] = report.examples
      toast(`Learnt: this is ${report.class}.`, { action: { label: "Undo", run: () => undo(report.class, example.id, item) } })
      forget()
      await ask(item)
    } catch (problem) {
      toast(problem.message, { fault: true })
    }
  }

  async function undo(name, id, item) {
    try {
      await api.removeExample(name, id)
      const left = await api.readClass(name)
      if (left.examples === 0) await api.removeClass(name, left.version).catch(() => null) // it was made by this; not all keys may
      forget()
      await ask(item)
    } catch (problem) {
      toast(problem.message, { fault: true })
    }
  }

  const forget = () => window.dispatchEvent(new CustomEvent("classes-changed"))
  // Every answer may be another one now, whichever view has changed what is taught.
  window.addEventListener("classes-changed", () => items.forEach((item) => (item.answers = {})))

  function enter() {
    lookWhetherTaught()
    if (current) ask(current)
  }

  render()
  return { node, title: "Recognise", take, enter }
}

function teachPicture(file) {
  window.dispatchEvent(new CustomEvent("teach-picture", { detail: file }))
}

/** The ground on which it was accepted: its print, or else its look. */
function why(candidate, shown) {
  const look = `Its look is ${figure(candidate.similarity)} alike`
  return shown?.verified
    ? `${shown.verified.points} points of its print were found where they belong. ${look}.`
    : `${look}; ${figure(candidate.threshold)} is needed.`
}

/** The same in figures. */
function groundOf({ similarity, threshold }, shown) {
  const proof = shown?.verified
  return proof
    ? `print: ${plural(proof.points, "point")}, similarity ${figure(similarity)}`
    : `similarity ${figure(similarity)}, ${figure(threshold)} needed`
}

function outlinesOf(answer) {
  if (!answer || answer.waiting || answer.problem) return []
  if (answer.detections) {
    return answer.detections.map((one, number) => ({
      corners: one.quad ?? cornersOf(one.box), kind: one.outcome, label: `${number + 1} ${one.class}`,
    })).reverse()
  }
  const [best] = answer.candidates
  const quad = answer.outcome !== "unknown" && best?.evidence[0]?.verified?.quad
  return quad ? [{ corners: quad, kind: answer.outcome, label: null }] : []
}

function kindOf(answer) {
  if (!answer || answer.waiting) return "waiting"
  if (answer.problem) return "problem"
  if (answer.detections) return answer.detections[0]?.outcome ?? "unknown"
  return answer.outcome
}

/** An answer in a sentence. */
function spoken(answer) {
  if (!answer || answer.waiting) return "not answered yet"
  if (answer.problem) return answer.problem.message
  if (answer.detections) {
    return answer.detections.length ? `found ${answer.detections.map((one) => one.class).join(", ")}` : "nothing found"
  }
  if (answer.outcome === "match") return `${answer.decision}, ${percent(answer.candidates[0].probability)}`
  return answer.outcome === "doubtful" ? `doubtful, perhaps ${answer.candidates[0].class}` : "unknown"
}
