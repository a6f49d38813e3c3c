// What the user can put right; the message is made as the Python package makes its own.
export class Problem extends Error {
  constructor(problem, { file, found, expected, remedy } = {}) {
    const parts = [file === undefined ? problem : `${file}: ${problem}`];
    if (found !== undefined) parts.push(`found ${found}`);
    if (expected !== undefined) parts.push(`expected ${expected}`);
    super(`${parts.join("; ")}.${remedy ? ` ${remedy}` : ""}`);
  }
}
