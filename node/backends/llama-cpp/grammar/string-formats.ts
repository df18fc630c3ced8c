/** What each of JSON schema's formats looks like between the quotes: a plain part of what it allows. */
import type { StringFormat } from '../../../../protocols/inference/bodies/json-schema/shape.ts';

const YEAR = '[12] [0-9]{3}';
const DAY_28 = '("0" [1-9] | "1" [0-9] | "2" [0-8])';
const DAY_30 = '("0" [1-9] | [12] [0-9] | "30")';
const DAY_31 = '("0" [1-9] | [12] [0-9] | "3" [01])';
const DATE = `${YEAR} "-" (("0" [13578] | "1" [02]) "-" ${DAY_31} | ("0" [469] | "11") "-" ${DAY_30} | "02-" ${DAY_28})`;
const TIME_OF_DAY = '("0" [0-9] | "1" [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})?';
const TIME = `${TIME_OF_DAY} ("Z" | [-+] ("0" [0-9] | "1" [0-3]) ":" [0-5] [0-9])`;
const HEX = '[0-9a-fA-F]';
const BYTE = '("25" [0-5] | "2" [0-4] [0-9] | "1" [0-9] [0-9] | [1-9] [0-9] | [0-9])';
const LABEL = '[a-z0-9] ([a-z0-9] | "-" [a-z0-9]){0,20}';
const HOST = `${LABEL} ("." ${LABEL}){0,4}`;
/** A last label of digits would make it an IPv4 address. */
const URL_HOST = `(${LABEL} "."){0,4} [a-z]{1,12}`;

export const STRING_FORMAT_RULES: Readonly<Record<StringFormat, string>> = {
  date: DATE,
  time: TIME,
  'date-time': `${DATE} "T" ${TIME}`,
  uuid: `${HEX}{8} "-" ${HEX}{4} "-" ${HEX}{4} "-" ${HEX}{4} "-" ${HEX}{12}`,
  ipv4: `${BYTE} "." ${BYTE} "." ${BYTE} "." ${BYTE}`,
  email: `[a-zA-Z0-9_+-]{1,32} ("." [a-zA-Z0-9_+-]{1,32}){0,3} "@" ${HOST} "." [a-z]{2,12}`,
  hostname: HOST,
  uri: `("http" "s"? | "ftp") "://" ${URL_HOST} (":" [1-9] [0-9]{1,3})? ("/" [A-Za-z0-9._~-]{0,64}){0,8} ("?" [A-Za-z0-9._~=&-]{0,64})? ("#" [A-Za-z0-9._~-]{0,32})?`,
};
