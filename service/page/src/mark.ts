export const MARK = `${import.meta.env.BASE_URL}favicon.svg`;
