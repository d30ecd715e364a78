// What is enrolled: all classes with their crops, and one class with its examples, name and threshold.

import { api } from "./api.js"
import { el, figure, plural, replace, speak, toast } from "./dom.js"
import { busyPanel, exampleImage, faultPanel, whenSeen } from "./parts.js"
import { thresholdPanel } from "./threshold.js"

const PAGE = 60
const SEARCHED = 500 // classes a page: a search reads them all

export function classesView() {
  const grid = el("ul.grid")
  const more = el("div.row.centre")
  const search = el("input", { type: "search", id: "search", placeholder: "Search by name", autocomplete: "off" })
  const count = el("p.hint", { role: "status" })
  const node = el("div.view", {},
    el("div.bench-top", {}, el("h1", { tabIndex: -1 }, "Classes"), el("div.field.search", {}, el("label.visually-hidden", { htmlFor: "search" }, "Search by name"), search)),
    count, grid, more)
  const cards = []
  let cursor = null
  let wanted = ""

  async function load() {
    replace(more, el("span.spinner"))
    try {
      const page = await api.classes(cursor, wanted ? SEARCHED : PAGE)
      cursor = page.next_cursor
      for (const one of page.classes) cards.push({ name: one.class.toLocaleLowerCase(), node: card(one) })
      filter()
    } catch (problem) {
      replace(more, faultPanel(problem, load))
    }
  }

  /** Searching reads on to the end, since the service lists and does not search. */
  function filter() {
    const fitting = cards.filter((one) => one.name.includes(wanted))
    replace(grid, fitting.map((one) => one.node))
    count.textContent = cards.length === 0 ? "" : wanted ? `${plural(fitting.length, "class", "classes")} with this name` : ""
    if (cards.length === 0) replace(more, empty())
    else if (cursor === null) replace(more, wanted && fitting.length === 0 && teachIt(search.value.trim()))
    else if (wanted) load()
    else replace(more, el("button", { type: "button", onclick: load }, "Show more"))
  }

  search.addEventListener("input", () => {
    wanted = search.value.trim().toLocaleLowerCase()
    filter()
  })
  load()
  return { node, title: "Classes", enter: () => null }
}

const teachIt = (name) => el("a.button", { href: `#teach=${encodeURIComponent(name)}` }, `Teach ${name}`)

function empty() {
  return el("div.empty", {}, el("p.decision", {}, "Nothing has been taught yet"), el("a.button.primary", { href: "#teach" }, "Teach a brand or product"))
}

function card(one) {
  const picture = el("span.crop")
  if (one.examples > 0) whenSeen(picture, () => firstExample(one.class, picture))
  else picture.classList.add("missing")
  return el("li", {}, el("a.card", { href: `#class=${encodeURIComponent(one.class)}` },
    picture, el("span.card-name", { title: one.class }, one.class), el("span.hint", {}, plural(one.examples, "example"))))
}

async function firstExample(name, frame) {
  try {
    const { examples: [first] } = await api.examples(name, null, 1)
    frame.replaceWith(exampleImage(name, first.id, ""))
  } catch {
    frame.classList.add("missing")
  }
}

export function classView(name) {
  const node = el("div.view", {}, busyPanel("Reading …"))
  const view = { node, title: name, enter: () => null }
  let state = null
  let examples = []
  let tiles = []

  async function load() {
    try {
      state = await api.readClass(name)
      examples = await allExamples(name)
      render()
    } catch (problem) {
      replace(node, el("p", {}, el("a", { href: "#classes" }, "← Classes")), faultPanel(problem, load))
    }
  }

  function render() {
    replace(node,
      el("p", {}, el("a", { href: "#classes" }, "← Classes")),
      el("div.bench-top", {}, el("h1", { tabIndex: -1 }, name), el("p.hint", {}, `${plural(examples.length, "example")} · version ${state.version}`)),
      el("div.bench.class-bench", {},
        el("section", {}, el("h2", {}, "Examples"), gallery()),
        el("div.side", {}, threshold(), renamePanel(), deletePanel())))
  }

  function gallery() {
    tiles = examples.map((example) =>
      el("li.example", {},
        exampleImage(name, example.id, `Example ${example.id.slice(0, 8)}`),
        el("span.hint", {}, example.similarity === null ? "the only one" : `${figure(example.similarity)} like the others`),
        el("button.remove", {
          type: "button",
          "aria-label": `Remove example ${example.id.slice(0, 8)}`,
          onclick: () => removeExample(example),
        }, "×")))
    const add = el("li", {}, el("a.add", { href: `#teach=${encodeURIComponent(name)}` }, el("span", { "aria-hidden": "true" }, "+"), "Add pictures"))
    return el("ul.grid.small-grid", {}, tiles, add)
  }

  function threshold() {
    if (state.threshold === null) return el("section.panel", {}, el("h2", {}, "Threshold"), el("p.hint", {}, "It has one when it has examples."))
    return thresholdPanel({
      name,
      threshold: state.threshold,
      examples,
      moved: (value) => examples.forEach(({ similarity }, number) => tiles[number].classList.toggle("left-out", similarity !== null && similarity < value)),
      set: (value) => change({ threshold: value }, value === null ? "The threshold is the computed one again." : "The threshold is set."),
    })
  }

  function renamePanel() {
    const field = el("input", { type: "text", id: "new-name", value: name, maxLength: 200, spellcheck: false })
    const rename = async (event) => {
      event.preventDefault()
      if (field.value.trim() === name) return
      const changed = await change({ name: field.value.trim() }, null)
      if (changed) {
        toast(`${name} is now ${changed.class}.`)
        location.hash = `class=${encodeURIComponent(changed.class)}`
      }
    }
    return el("form.panel", { onsubmit: rename }, el("div.field", {}, el("label", { htmlFor: "new-name" }, "Name"), field),
      el("div.row", {}, el("button", { type: "submit" }, "Rename")))
  }

  const deletePanel = () =>
    el("section.panel.slim", {}, el("p", {}, "Delete this class with all its examples."),
      el("button.danger", { type: "button", onclick: confirmDelete }, "Delete …"))

  async function change(patch, done) {
    try {
      const changed = await api.change(name, patch, state.version)
      window.dispatchEvent(new CustomEvent("classes-changed"))
      if (done) {
        await load() // first, or it would take away what is typed after the words
        toast(done)
      }
      return changed
    } catch (problem) {
      if (problem.status === 412) await load()
      toast(problem.status === 412 ? "Somebody else has changed this class meanwhile; here it is as it is now." : problem.message, { fault: true })
      return null
    }
  }

  async function removeExample(example) {
    try {
      await api.removeExample(name, example.id)
      await load()
      speak("The example is removed.")
    } catch (problem) {
      toast(problem.message, { fault: true })
    }
  }

  function confirmDelete() {
    const dialog = el("dialog", { "aria-labelledby": "delete-title" },
      el("h2", { id: "delete-title" }, `Delete ${name}?`),
      el("p", {}, `With it goes what it was taught: ${plural(examples.length, "example")}. This cannot be undone.`),
      el("div.row", {},
        el("button.danger", { type: "button", onclick: () => (dialog.close(), remove()) }, "Delete"),
        el("button", { type: "button", onclick: () => dialog.close(), autofocus: true }, "Keep it")))
    dialog.addEventListener("close", () => dialog.remove())
    document.body.append(dialog)
    dialog.showModal()
  }

  async function remove() {
    try {
      await api.removeClass(name, state.version)
      toast(`${name} is deleted.`)
      window.dispatchEvent(new CustomEvent("classes-changed"))
      location.hash = "classes"
    } catch (problem) {
      toast(problem.message, { fault: true })
      await load()
    }
  }

  load()
  return view
}

async function allExamples(name) {
  const all = []
  let cursor = null
  do {
    const page = await api.examples(name, cursor)
    all.push(...page.examples)
    cursor = page.next_cursor
  } while (cursor !== null)
  return all
}
