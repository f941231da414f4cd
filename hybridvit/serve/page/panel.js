/** One model's place on the page: from the picture that is sent to the answer, or why there is none. */

import { Refusal, predict } from "./ask.js";
import { answerOf, drawn, element, factsOf, spoken } from "./draw.js";

const ANSWER = "Answer"; // the view of the answer drawn on the picture
const OVERLAYS = { cam: "What speaks for it", attention: "Where it looks" }; // in words

export class Panel {
  /**
   * @param {object} model a row of the server's list
   * @param {(text: string) => void} say tells people who hear the page
   * @param {() => void} changed called when there is an answer, or none any more
   */
  constructor(model, say, changed) {
    this.model = model;
    this.say = say;
    this.changed = changed;
    this.body = null; // the answer
    this.picture = null;
    this.asking = new AbortController();
    this.addresses = []; // of pictures that the server drew
    this.root = document.getElementById("panel").content.cloneNode(true).firstElementChild;
    this.part("h2").textContent = model.name;
    this.part(".facts").textContent = factsOf(model);
    this.part(".message button").addEventListener("click", () => this.ask(this.picture));
  }

  part(selector) {
    return this.root.querySelector(selector);
  }

  /** Nothing is asked or shown any more. */
  clear() {
    this.asking.abort();
    this.asking = new AbortController();
    this.body = null;
    this.addresses.forEach((address) => URL.revokeObjectURL(address));
    this.addresses = [];
    this.become("empty");
    this.changed();
  }

  /** Sends the picture, shows what comes. A picture before it is forgotten. */
  async ask(picture) {
    this.clear();
    this.picture = picture;
    const { signal } = this.asking;
    this.become("waiting", "Waiting for the answer …");
    const began = performance.now();
    try {
      const response = await this.predict({}, signal, (seconds) =>
        this.become("overloaded", `The server is busy. It will be asked again in ${seconds} s …`),
      );
      const body = await response.json();
      this.show(body, performance.now() - began);
    } catch (error) {
      if (!signal.aborted) this.refuse(error);
    }
  }

  predict(query, signal, waits) {
    return predict(this.picture, { model: this.model.name, ...query }, signal, waits);
  }

  become(state, reason = "") {
    this.root.dataset.state = state;
    this.root.setAttribute("aria-busy", String(Boolean(reason)));
    this.part(".reason").textContent = reason;
    if (reason) this.say(reason);
  }

  refuse(error) {
    const isSaid = error instanceof Refusal;
    this.become(isSaid ? error.state : "gone");
    this.part(".message p").textContent = isSaid ? error.message : `The answer could not be read: ${error.message}.`;
    this.part(".message button").hidden = isSaid && !error.mayPass;
    this.part(".message").focus();
  }

  show(body, tookMs) {
    this.body = body;
    this.part(".said").replaceChildren(...drawn(body, tookMs));
    this.become("result");
    this.offerViews(body.lies_in_picture);
    this.say(`${this.model.name}: ${spoken(answerOf(body))}`);
    this.changed();
  }

  /** A button for each picture that the server draws; the answer itself is shown at once if it lies in the picture. */
  offerViews(isPlaced) {
    const named = (this.model.overlays ?? []).map((name) => [OVERLAYS[name] ?? name, { overlay: name }]);
    const queries = Object.fromEntries(named);
    const offered = isPlaced ? { [ANSWER]: { picture: "1" }, ...queries } : queries;
    const buttons = Object.entries(offered).map(([name, query]) => this.viewButton(name, query));
    this.part(".views").replaceChildren(...buttons);
    this.part(".views").hidden = Object.keys(queries).length === 0;
    this.part("figure").replaceChildren(); // of the picture before
    this.part("figure").hidden = true;
    if (isPlaced) this.toggle(buttons[0], ANSWER, offered[ANSWER]);
  }

  viewButton(name, query) {
    const button = element("button", { type: "button", className: "button", textContent: name, ariaPressed: "false" });
    button.addEventListener("click", () => this.toggle(button, name, query));
    return button;
  }

  async toggle(button, name, query) {
    const { signal } = this.asking;
    const isOn = button.ariaPressed !== "true";
    for (const each of this.part(".views").children) each.ariaPressed = String(isOn && each === button);
    const figure = this.part("figure");
    figure.hidden = !isOn;
    if (!isOn) return;
    figure.setAttribute("aria-busy", "true");
    const picture = await this.view(name, query, signal);
    if (signal.aborted || button.ariaPressed !== "true") return;
    figure.replaceChildren(picture);
    figure.setAttribute("aria-busy", "false");
  }

  /** The picture that the server draws, or why there is none. */
  async view(name, query, signal) {
    try {
      const response = await this.predict(query, signal, () => {});
      const address = URL.createObjectURL(await response.blob());
      this.addresses.push(address);
      const alt = `${this.model.name}: ${name}, drawn on the picture`;
      return element("img", { src: address, alt });
    } catch (error) {
      return element("figcaption", { textContent: error.message });
    }
  }
}
