// Pictures of a class in, with boxes where only a part is meant; the report of what was understood out.

import { api } from "./api.js"
import { el, figure, plural, replace, speak, toast } from "./dom.js"
import { busyPanel, classLink, exampleImage, faultPanel, nameField } from "./parts.js"
import { boxEditor, cornersOf, cutout, loaded, outlined, pictureField, wholeOf } from "./pictures.js"

// What to do about a warning, for people; its own sentence has the numbers.
const ADVICE = {
  too_small: "Take it from nearer, or send a larger file.",
  blurred: "Take it again with a steady hand and more light.",
  near_duplicate: "Another side or another light would teach more.",
  unlike_class: "Is it really of this class? If so, keep it: it shows another side.",
  several_things: "Draw a box around the one that is meant.",
  few_points: "There is little print on it: it is known by its look alone, and not found in scenes.",
}

export function teachView(known = null) {
  const items = []
  let current = null
  let taught = false // what is shown has been learnt: the next pictures are others
  const node = el("div.view")
  const nameInput = nameField({ id: "class-name", label: "Name of the class", placeholder: "e.g. Acme cola, 0.5 l" })
  if (known) nameInput.input.value = known
  const result = el("div.answer")

  async function take(files) {
    const taken = await Promise.all(files.map(async (file) => ({ picture: await loaded(file), box: null })))
    if (taught) items.length = 0
    taught = false
    items.push(...taken)
    current = taken[0]
    replace(result)
    render()
    if (!nameInput.input.value) nameInput.input.focus()
  }

  function render() {
    replace(node,
      el("h1", { tabIndex: -1 }, known ? `Pictures of ${known}` : "Teach a brand or product"),
      items.length ? bench() : [
        el("p.lead", {}, "One or two clean pictures are enough. From the next request on it is recognised."),
        pictureField({
          title: "Drop pictures of one class here",
          touchTitle: "Pictures of one class",
          hint: "From the front, sharp, little else around it. Several sides make it surer.",
          take,
        }),
      ])
  }

  const bench = () => el("div.bench", {},
    el("div.stage", {}, taught ? learnt() : [editor(), boxLine()], strip()),
    el("div.side", {}, !taught && form(), result))

  const editor = () => boxEditor(current.picture, current.box, (box) => {
    current.box = box
    renderBox()
  })

  function learnt() {
    const outlines = current.box ? [{ corners: cornersOf(current.box), kind: "match", label: null }] : []
    return outlined(current.picture, outlines, { alt: `Picture of ${nameInput.input.value}` })
  }

  const boxText = el("span")
  function renderBox() {
    const { box } = current
    replace(boxText, box ? `Box: ${box.width} × ${box.height} at ${box.x}, ${box.y}. ` : "The whole picture is meant. Draw a box if only a part is. ",
      box && el("button.link", { type: "button", id: "whole", onclick: () => ((current.box = null), render()) }, "Use the whole picture"))
  }
  function boxLine() {
    renderBox()
    return el("p.hint.box-line", { "aria-live": "polite" }, boxText)
  }

  function strip() {
    const add = el("input.visually-hidden", { type: "file", id: "more-examples", accept: "image/*", multiple: true, onchange: (event) => take([...event.target.files]) })
    return el("div.strip", {},
      items.map((item, number) => el("span.strip-cell", {},
        el("button.strip-item", { type: "button", id: `example-${number}`, "aria-pressed": String(item === current), "aria-label": `Picture ${number + 1}, ${item.picture.file.name}`, onclick: () => ((current = item), render()) },
          item.picture.image ? el("img", { src: item.picture.url, alt: "" }) : null),
        !taught && el("button.strip-remove", { type: "button", "aria-label": `Leave out ${item.picture.file.name}`, onclick: () => leaveOut(item) }, "×"))),
      el("span", {}, add, el("label.strip-add", { htmlFor: add.id, title: "More pictures" }, "+", el("span.visually-hidden", {}, "More pictures"))))
  }

  function leaveOut(item) {
    items.splice(items.indexOf(item), 1)
    if (current === item) current = items[0] ?? null
    render()
  }

  const form = () =>
    el("form.panel", { onsubmit: (event) => (event.preventDefault(), send({ dryRun: false })) },
      nameInput.node,
      el("div.row", {},
        el("button.primary", { type: "submit" }, `Teach ${plural(items.length, "picture")}`),
        el("button", { type: "button", onclick: () => send({ dryRun: true }) }, "Check first")),
      el("p.hint", {}, "“Check first” shows the report and stores nothing."))

  async function send({ dryRun }) {
    const wanted = nameInput.input.value.trim()
    if (!wanted) {
      nameInput.input.focus()
      return toast("Give the class a name.", { fault: true })
    }
    replace(result, busyPanel(dryRun ? "Checking …" : "Learning …"))
    const sent = [...items]
    try {
      const report = await api.enrol(wanted, sent.map(({ picture, box }) => ({ file: picture.file, box })), { dryRun })
      replace(result, reportPanel(report, sent))
      taught = !dryRun
      if (taught) render()
      speak(dryRun ? `Checked: ${warningCount(report)}.` : `Learnt ${report.class}: ${warningCount(report)}.`)
      if (!dryRun) window.dispatchEvent(new CustomEvent("classes-changed"))
    } catch (problem) {
      replace(result, faultPanel(problem, null))
    }
    if (matchMedia("(max-width: 800px)").matches) result.scrollIntoView({ behavior: "smooth" })
  }

  function reportPanel(report, sent) {
    return el("section.panel.report", { "aria-label": "Report" },
      el("p.report-head", {}, el("span.tick", { "aria-hidden": "true" }, report.dry_run ? "?" : "✓"),
        el("span", {}, report.dry_run ? "This is what would be learnt of " : "From now on it knows ", el("strong", {}, report.dry_run ? report.class : classLink(report.class)))),
      el("ul.examples-report", {}, report.examples.map((example, number) => exampleRow(example, sent[number]))),
      el("dl.facts", {},
        el("dt", {}, "Accepted from"), el("dd", {}, `similarity ${figure(report.threshold)}`),
        report.nearest.length > 0 && [el("dt", {}, "Most alike"), el("dd", {}, report.nearest.slice(0, 3).map((one) => el("span.near", {}, classLink(one.class), ` ${figure(one.similarity)}`)))]),
      !report.dry_run && el("div.row", {},
        el("a.button.primary", { href: "#recognise", id: "try" }, "Try it on a picture"),
        el("button", { type: "button", onclick: startOver }, "Teach another")))
  }

  function exampleRow(example, { picture, box }) {
    return el("li", {},
      picture.image ? cutout(picture, box ?? wholeOf(picture), picture.file.name) : el("span.crop.missing"),
      example.warnings.length === 0
        ? el("p.good", {}, "A good example.")
        : el("ul.warnings", {}, example.warnings.map((warning) =>
            el("li", {}, el("strong", {}, warning.detail), " ", ADVICE[warning.code] ?? "",
              warning.class && el("a", { href: `#class=${encodeURIComponent(warning.class)}` }, "Look at that class")))),
      example.warnings.filter((warning) => warning.class && warning.example).slice(0, 1).map((warning) => exampleImage(warning.class, warning.example, `Example of ${warning.class}`)))
  }

  function startOver() {
    items.length = 0
    current = null
    taught = false
    known = null
    nameInput.input.value = ""
    replace(result)
    render()
    location.hash = "teach"
    node.querySelector("h1").focus()
  }

  render()
  return { node, title: "Teach", take, enter: render }
}

function warningCount(report) {
  const count = report.examples.reduce((sum, example) => sum + example.warnings.length, 0)
  return count ? plural(count, "warning") : "no warnings"
}
