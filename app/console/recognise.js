// Pictures in, what they show out, and a wrong answer put right in one click.

import { api } from "./api.js"
import { el, figure, percent, replace, speak, toast } from "./dom.js"
import { badge, busyPanel, classLink, exampleImage, faultPanel, meter, nameField } from "./parts.js"
import { cornersOf, cutout, loaded, outlined, pictureField } from "./pictures.js"

const MODES = { classify: "One thing", detect: "Several things" }
const REASONS = {
  below_threshold: "It is like this class, but not as much as its threshold asks for.",
  ambiguous: "Two classes fit so well that they cannot be told apart.",
  no_classes: "Nothing has been taught yet.",
}

export function recogniseView() {
  const items = []
  let mode = "classify"
  let current = null
  const node = el("div.view")

  async function take(files) {
    const taken = await Promise.all(files.map(async (file) => ({ picture: await loaded(file), answers: {} })))
    items.unshift(...taken)
    select(taken[0])
    for (const item of taken) await ask(item)
  }

  async function ask(item) {
    const asked = mode
    if (item.answers[asked] && !item.answers[asked].problem) return
    item.answers[asked] = { waiting: true }
    render()
    try {
      item.answers[asked] = asked === "classify" ? await api.classify(item.picture.file) : await api.detect(item.picture.file)
    } catch (problem) {
      item.answers[asked] = { problem }
    }
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

  const field = (title) =>
    pictureField({ title, hint: "Drop or paste them anywhere on this page. They are sent to this service only.", several: true, take })

  const welcome = () => [
    el("h1", { tabIndex: -1 }, "What is in this picture?"),
    el("p.lead", {}, "Drop a photograph. You see what it shows, how sure that is, and which of your examples decided."),
    modes(),
    field("Drop pictures here"),
    el("p.hint.centre", {}, "Nothing taught yet? ", el("a", { href: "#teach" }, "Teach a brand or product"), " with one or two pictures."),
  ]

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
    const answer = current.answers[mode]
    return outlined(current.picture, outlinesOf(answer), { alt: `Your picture ${current.picture.file.name}` })
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
        best && answer.outcome !== "unknown" && decided(best, wholeOf(current.picture))),
      answer.candidates.length > 0 &&
        el("section.panel", {},
          el("h2", {}, answer.outcome === "match" ? "How sure, and what else it could be" : "What comes nearest"),
          el("ul.candidates", {}, [best, ...others].map((one) => candidateRow(one, answer)))),
      correction({ title: answer.outcome === "match" ? "Is it something else?" : "What is it?", box: null }),
    ]
  }

  function headline(answer, best) {
    if (answer.outcome === "match") return el("p.decision", {}, classLink(answer.decision))
    if (answer.outcome === "doubtful") return el("p.decision", {}, "Perhaps ", classLink(best.class))
    return el("p.decision", {}, "Nothing you have taught")
  }

  /** The picture beside the example that decided, and in words why. */
  function decided(candidate, region) {
    const [shown] = candidate.evidence
    if (!shown) return null
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
        el("p.hint", {}, `similarity ${figure(candidate.similarity)} of ${figure(candidate.threshold)} needed`)),
      !isDecision && el("button.small", { type: "button", onclick: () => correct(candidate.class, null), "aria-label": `It is ${candidate.class}: make this picture an example of it` }, "It’s this"))
  }

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
    const right = el("form.correct", { hidden: true, onsubmit: (event) => (event.preventDefault(), correct(others.input.value, found.box)) },
      others.node, el("button.primary", { type: "submit" }, "Teach"))
    const toggle = el("button.small", { type: "button", "aria-expanded": "false", onclick: () => {
      right.hidden = !right.hidden
      toggle.setAttribute("aria-expanded", String(!right.hidden))
      if (!right.hidden) others.input.focus()
    } }, "Wrong?")
    return el("li.found-row", {},
      el("span.number", {}, String(number + 1)),
      cutout(current.picture, found.box, "In your picture"),
      shown && exampleImage(found.class, shown.example, `Example of ${found.class}`),
      el("div.candidate-text", {},
        el("div.candidate-name", {}, classLink(found.class), el("span.figure", {}, percent(found.probability))),
        meter(found.probability, found.outcome),
        el("p.hint", {}, found.outcome === "match" ? why(found, shown) : `Doubtful. ${REASONS[found.reason] ?? ""}`)),
      toggle, right)
  }

  const teachHere = () =>
    el("section.panel.slim", {}, el("p", {}, "Is something missing or wrong?"),
      el("button", { type: "button", onclick: () => teachPicture(current.picture.file) }, "Draw a box and teach it"))

  function correction({ title, box }) {
    const name = nameField({ id: "right", label: "Class", placeholder: "a name, new or known" })
    return el("section.panel", {}, el("h2", {}, title),
      el("form.correct", { onsubmit: (event) => (event.preventDefault(), correct(name.input.value, box)) },
        name.node, el("button.primary", { type: "submit" }, "Teach")),
      el("p.hint", {}, "This picture becomes an example of that class. Only part of it is meant? ",
        el("a", { href: "#teach", onclick: (event) => (event.preventDefault(), teachPicture(current.picture.file)) }, "Draw a box."), ""))
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

  render()
  return { node, title: "Recognise", take, enter: () => current && ask(current) }
}

function teachPicture(file) {
  window.dispatchEvent(new CustomEvent("teach-picture", { detail: file }))
}

function why(candidate, shown) {
  const proof = shown?.verified
  const look = `Its look is ${figure(candidate.similarity)} alike; ${figure(candidate.threshold)} is needed.`
  return proof ? `${proof.points} points of its print were found where they belong. ${look}` : look
}

const wholeOf = ({ width, height }) => ({ x: 0, y: 0, width, height })

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
