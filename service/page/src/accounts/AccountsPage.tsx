export default function AccountsPage(_: { ingestion?: string | null; id?: string | null }) { return null; }
