from django.db import migrations, models


class Migration(migrations.Migration):
    operations = [
        migrations.RunSQL("CREATE EXTENSION IF NOT EXISTS sea_mq", migrations.RunSQL.noop),
        migrations.CreateModel("Order", [("id", models.BigAutoField(primary_key=True))]),
    ]
