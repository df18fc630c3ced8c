/** Secrets planted to be looked for, in every form in which a program may spill them. */

/** At least so many bytes of a secret in a row count: shorter pieces occur by chance. */
const WHOLE = 12;

export class Canaries {
  readonly #forms: { readonly name: string; readonly form: string; readonly text: string }[] = [];

  /** Texts by what they are; bytes for keys that are no text. */
  add(name: string, secret: string | Uint8Array): void {
    const bytes = Buffer.from(secret as string);
    if (bytes.length < WHOLE) throw new Error(`${name} is too short to be found for sure`);
    const forms: [string, string][] = [
      ['hex', bytes.toString('hex')],
      ...[0, 1, 2].flatMap((shift): [string, string][] => {
        const text = base64At(bytes, shift);
        return [
          ['base64', text],
          ['base64url', text.replaceAll('+', '-').replaceAll('/', '_')],
        ];
      }),
    ];
    if (typeof secret === 'string') {
      const url = encodeURIComponent(secret);
      forms.push(['raw', secret], ['json', JSON.stringify(secret).slice(1, -1)], ['url', url]);
      forms.push(['form', url.replaceAll('%20', '+')]);
    } else forms.push(['latin1', bytes.toString('latin1')]);
    for (const [form, text] of forms) this.#forms.push({ name, form, text });
  }

  /** Which canaries are in this text, for example `peer key (hex)`; hexadecimal and escapes in either case. */
  findIn(text: string): string[] {
    const small = text.toLowerCase();
    const found = this.#forms.filter(({ form, text: wanted }) =>
      form === 'hex' || form === 'url' ? small.includes(wanted.toLowerCase()) : text.includes(wanted),
    );
    return [...new Set(found.map(({ name, form }) => `${name} (${form})`))];
  }

  /** Each form of each canary: for proving that it is found. */
  forms(): readonly { readonly name: string; readonly form: string; readonly text: string }[] {
    return this.#forms;
  }
}

/** The characters of base64 that depend on `bytes` alone when `shift` others stand before them. */
function base64At(bytes: Buffer, shift: number): string {
  const text = Buffer.concat([Buffer.alloc(shift), bytes])
    .toString('base64')
    .replace(/=+$/, '');
  const before = shift === 0 ? 0 : shift + 1;
  const whole = Math.floor(((bytes.length + shift) * 8) / 6);
  return text.slice(before, whole);
}
