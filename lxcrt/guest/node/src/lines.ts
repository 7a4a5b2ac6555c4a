/**
 * Cuts a byte stream into lines. Decoding happens a whole line at a time, so a
 * multi-byte character split over two chunks stays whole.
 */
export class LineReader {
  private parts: Buffer[] = []

  /** Takes the next chunk; returns the lines it completes, without line ends and blanks. */
  feed(chunk: Buffer): string[] {
    const lines: string[] = []
    let start = 0
    for (;;) {
      const end = chunk.indexOf(0x0a, start)
      if (end < 0) break
      this.parts.push(chunk.subarray(start, end))
      const line = (this.parts.length === 1 ? this.parts[0]! : Buffer.concat(this.parts)).toString('utf8').trim()
      this.parts = []
      if (line) lines.push(line)
      start = end + 1
    }
    if (start < chunk.length) this.parts.push(chunk.subarray(start))
    return lines
  }

  /** What stands after the last line end; the stream is over. */
  rest(): string {
    const rest = Buffer.concat(this.parts).toString('utf8').trim()
    this.parts = []
    return rest
  }
}
