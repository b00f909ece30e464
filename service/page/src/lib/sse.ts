/** Server-sent events as bytes arrive: https://html.spec.whatwg.org/multipage/server-sent-events.html, without ids. */

export interface ServerEvent {
  event: string;
  data: string;
}

/** Feed it pieces of text, cut anywhere; it returns the events that are complete. */
export class EventParser {
  private rest = "";
  private event = "";
  private data: string[] = [];

  push(text: string): ServerEvent[] {
    const found: ServerEvent[] = [];
    this.rest += text;
    for (;;) {
      const end = /\r\n|\n|\r(?=[^\n])/.exec(this.rest); // a last \r may be half of \r\n
      if (!end) return found;
      const line = this.rest.slice(0, end.index);
      this.rest = this.rest.slice(end.index + end[0].length);
      const complete = this.line(line);
      if (complete) found.push(complete);
    }
  }

  private line(line: string): ServerEvent | null {
    if (line === "") {
      const complete = this.data.length ? { event: this.event || "message", data: this.data.join("\n") } : null;
      this.event = "";
      this.data = [];
      return complete;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return null; // a comment: somebody is still there
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.event = value;
    if (field === "data") this.data.push(value);
    return null;
  }
}
